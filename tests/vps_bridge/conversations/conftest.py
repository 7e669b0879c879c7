"""The stores that every test of the contract runs on, and the servers that two of them need: one a session."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres_server import PASSWORD, RunningPostgres
from tests.vps_bridge.conversations.document_server import DocumentServer, endpoint_at, run_documents
from tests.vps_bridge.conversations.odd_backend import OddBackend
from vps_bridge.conversations.http_store import HttpConversations
from vps_bridge.conversations.postgres import PostgresConversations
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.database_server import read_url

OpenStore = Callable[[], ConversationStore]


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocumentServer]:
    with run_documents(tmp_path_factory.mktemp("backend") / "documents.sqlite3") as server:
        yield server


def open_postgres(
    server: RunningPostgres, *, port: int | None = None, timeout_s: float = 10.0
) -> PostgresConversations:
    return PostgresConversations(
        read_url("conversations", server.url(port=port), PASSWORD), statement_timeout_s=timeout_s
    )


def empty_postgres(server: RunningPostgres) -> None:
    store = open_postgres(server)
    empty(store)
    store.close()


def empty(store: PostgresConversations) -> None:
    with store._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM conversations")


def empty_documents(server: DocumentServer) -> None:
    with sqlite3.connect(server.path) as connection:
        connection.execute("DELETE FROM documents")
    connection.close()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables: making them takes longer than most tests."""
    path = tmp_path_factory.mktemp("template") / "c.db"
    SqliteConversations(path).close()
    return path


@pytest.fixture(scope="session")
def postgres_stores(postgres: RunningPostgres) -> Iterator[Callable[[int], PostgresConversations]]:
    """The first, the second store and so on, connected once a session: that takes longer than most tests, too."""
    kept: list[PostgresConversations] = []

    def find(number: int) -> PostgresConversations:
        while len(kept) <= number:
            kept.append(open_postgres(postgres))
        return kept[number]

    yield find
    for store in kept:
        store.close()


@pytest.fixture(scope="session")
def plain_backend() -> Iterator[OddBackend]:
    """A backend in this process, which starts at once; it does nothing odd unless it is told to."""
    backend = OddBackend()
    with backend.listening():
        yield backend


@pytest.fixture(params=["sqlite", "postgres", "http", pytest.param("router", marks=pytest.mark.slow)])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens the same store again and again, as the bridge and its commands do; it is empty at first."""
    opened: list[ConversationStore] = []
    if request.param == "postgres":
        find = request.getfixturevalue("postgres_stores")
        empty(find(0))
        numbers = itertools.count()
        yield lambda: find(next(numbers))
        return
    if request.param == "http":
        backend: OddBackend = request.getfixturevalue("plain_backend")
        backend.reset()
        make: OpenStore = lambda: HttpConversations(endpoint_at(backend.port))  # noqa: E731 - one of three
    elif request.param == "router":
        documents: DocumentServer = request.getfixturevalue("documents")
        empty_documents(documents)
        make = documents.open_store
    else:
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "c.db")
        make = lambda: SqliteConversations(tmp_path / "c.db")  # noqa: E731 - the same

    def open_one() -> ConversationStore:
        opened.append(make())
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> ConversationStore:
    return open_store()
