"""The stores that every test of the contract runs on, and the servers that two of them need: one a session."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres_server import PASSWORD, RunningPostgres, run_postgres
from tests.vps_bridge.conversations.document_server import DocumentServer, run_documents
from vps_bridge.conversations.postgres import PostgresConversations, read_url
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.conversations.store import ConversationStore

OpenStore = Callable[[], ConversationStore]


@pytest.fixture(scope="session")
def postgres() -> Iterator[RunningPostgres]:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'omi-diarization[postgres]'")
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocumentServer]:
    with run_documents(tmp_path_factory.mktemp("backend") / "documents.sqlite3") as server:
        yield server


def open_postgres(
    server: RunningPostgres, *, port: int | None = None, timeout_s: float = 10.0
) -> PostgresConversations:
    return PostgresConversations(read_url(server.url(port=port), PASSWORD), statement_timeout_s=timeout_s)


def empty_postgres(server: RunningPostgres) -> None:
    store = open_postgres(server)
    with store._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM conversations")
    store.close()


def empty_documents(server: DocumentServer) -> None:
    with sqlite3.connect(server.path) as connection:
        connection.execute("DELETE FROM documents")
    connection.close()


@pytest.fixture(params=["sqlite", "postgres", "http"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens the same store again and again, as the bridge and its commands do; it is empty at first."""
    opened: list[ConversationStore] = []
    if request.param == "sqlite":
        make: OpenStore = lambda: SqliteConversations(tmp_path / "c.db")  # noqa: E731 - one of three
    elif request.param == "postgres":
        postgres: RunningPostgres = request.getfixturevalue("postgres")
        empty_postgres(postgres)
        make = lambda: open_postgres(postgres)  # noqa: E731 - the same
    else:
        documents: DocumentServer = request.getfixturevalue("documents")
        empty_documents(documents)
        make = documents.open_store

    def open_one() -> ConversationStore:
        opened.append(make())
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> ConversationStore:
    return open_store()
