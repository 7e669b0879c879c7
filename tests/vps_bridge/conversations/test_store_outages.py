"""A store elsewhere that is killed, cut off or silent in the middle of a write: nothing is lost or made twice."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr
from sqlalchemy import event

from tests.brokers import free_port
from tests.faults.proxy import TcpProxy
from tests.inbox import eventually
from tests.postgres_server import RunningPostgres
from tests.vps_bridge.conversations.conftest import empty_documents, empty_postgres, open_postgres
from tests.vps_bridge.conversations.document_server import DocumentServer
from tests.vps_bridge.conversations.test_store import make_segment, speakers_of
from tests.vps_bridge.conversations.test_store_history import correct
from vps_bridge.conversations.http_store import HttpConversations
from vps_bridge.conversations.open_store import open_store
from vps_bridge.conversations.postgres import PostgresConversations
from vps_bridge.conversations.store import Applied, ConversationStore, Label, speaker_name
from vps_bridge.errors import StoreUnavailable
from vps_bridge.settings import BridgeSettings

T = TypeVar("T")
WRITES = 12
SHORT_S = 0.4


class RemoteStore:
    """A store at a server that this test may kill, reached through a proxy that may cut and hold what goes there."""

    def __init__(self, server: RunningPostgres | DocumentServer, link: TcpProxy) -> None:
        self.server, self.link = server, link

    def open(self, *, timeout_s: float = 10.0, direct: bool = False) -> PostgresConversations | HttpConversations:
        port = self.server.port if direct else self.link.port
        if isinstance(self.server, RunningPostgres):
            return open_postgres(self.server, port=port, timeout_s=timeout_s)
        return self.server.open_store(port=port, timeout_s=timeout_s)


@pytest.fixture(params=["postgres", "http"])
def remote(request: pytest.FixtureRequest) -> Iterator[RemoteStore]:
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        empty_postgres(server)
    else:
        server = request.getfixturevalue("documents")
        empty_documents(server)
    with TcpProxy(server.port) as link:
        yield RemoteStore(server, link)


def persistently(work: Callable[[], T]) -> T:
    """What the bridge does: ask again until the store has answered."""
    answers: list[T] = []

    def succeeds() -> bool:
        try:
            answers.append(work())
        except StoreUnavailable:
            return False
        return True

    eventually(succeeds)
    return answers[0]


def write_all(store: ConversationStore, count: int, done: list[Applied]) -> None:
    """Corrections one after the other, each under a key of its own, and each asked for until it is there."""
    for number in range(count):
        applied = persistently(lambda number=number: correct(store, f"e{number}", "a", number))  # type: ignore[misc]
        done.append(applied)


@pytest.mark.parametrize(("kills", "writes"), [(1, WRITES), pytest.param(8, 200, marks=pytest.mark.slow)])
def test_kills_in_the_middle_of_writes_lose_nothing_and_double_nothing(
    remote: RemoteStore, kills: int, writes: int
) -> None:
    store = remote.open(direct=True)
    store.upsert_segments("c1", 1, [make_segment("a")])
    done: list[Applied] = []
    writer = threading.Thread(target=write_all, args=(store, writes, done))
    writer.start()
    for kill in range(kills):
        eventually(lambda kill=kill: len(done) > (kill + 1) * writes // (kills + 2))  # type: ignore[misc]
        remote.server.kill()
        remote.server.start()
    writer.join()
    history = store.history("c1")
    assert [write.write_key for write in history] == [f"e{number}" for number in range(writes)]
    assert [write.version for write in history] == [applied.version for applied in done] == list(range(1, writes + 1))
    assert [write.changes[0].after for write in history] == [speaker_name(number) for number in range(writes)]
    assert speakers_of(store) == {"a": speaker_name(writes - 1)}
    store.close()


def test_a_connection_cut_again_and_again_is_made_anew_and_writes_are_made_once(postgres: RunningPostgres) -> None:
    empty_postgres(postgres)
    with TcpProxy(postgres.port) as link:
        store = open_postgres(postgres, port=link.port)
        store.upsert_segments("c1", 1, [make_segment("a")])
        done: list[Applied] = []
        writer = threading.Thread(target=write_all, args=(store, WRITES, done))
        writer.start()
        while writer.is_alive():
            before = len(done)
            link.cut()
            eventually(lambda before=before: len(done) > before or not writer.is_alive())  # type: ignore[misc]
        assert [write.write_key for write in store.history("c1")] == [f"e{number}" for number in range(WRITES)]
        store.close()


def test_a_silent_store_is_given_up_in_time_and_left_alone_for_a_while(remote: RemoteStore) -> None:
    store = remote.open(timeout_s=SHORT_S)
    store.upsert_segments("c1", 1, [make_segment("a")])
    remote.link.hold()
    with pytest.raises(StoreUnavailable, match=r"did not answer within|no answer within"):
        correct(store, "e1", "a", 1)
    connections = remote.link.connections
    with pytest.raises(StoreUnavailable, match="asked again in"):
        store.read("c1")
    assert remote.link.connections <= connections, "the second call did not go there"
    remote.link.release()
    assert persistently(lambda: correct(store, "e1", "a", 1)) == Applied(1)
    assert [write.write_key for write in store.history("c1")] == ["e1"]
    store.close()


@pytest.mark.parametrize("scheme", ["postgresql", "http"])
def test_a_store_that_is_not_there_says_where_and_what_to_look_at_and_no_secret(scheme: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"{scheme}://127.0.0.1:{port}/omi?application_name=hush"
    settings = BridgeSettings(data_dir=tmp_path, conversations_url=url, conversations_secret=SecretStr("s" * 32))
    store = open_store(settings)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1.*refused") as refused:
        store.read("c1")
    assert "s" * 32 not in str(refused.value)
    assert "hush" not in str(refused.value)
    store.close()


def lose_answers_of_commits(store: PostgresConversations, link: TcpProxy) -> Callable[[], None]:
    """From now on the server gets each COMMIT, and its answer never arrives; the function returned ends that."""

    def deafen(_connection: Any) -> None:
        link.deafen()

    event.listen(store._database._engine, "commit", deafen)
    return lambda: event.remove(store._database._engine, "commit", deafen)


def test_a_commit_whose_answer_is_lost_is_found_out_and_made_once(postgres: RunningPostgres) -> None:
    empty_postgres(postgres)
    with TcpProxy(postgres.port) as link:
        store, witness = open_postgres(postgres, port=link.port), open_postgres(postgres)
        store.upsert_segments("c1", 1, [make_segment("a")])
        end = lose_answers_of_commits(store, link)
        results: list[Applied] = []
        asking = threading.Thread(target=lambda: results.append(correct(store, "e1", "a", 3)))
        asking.start()
        eventually(lambda: len(witness.history("c1")) == 1)
        end()
        link.cut()
        asking.join()
        assert results == [Applied(1)]
        assert [write.write_key for write in witness.history("c1")] == ["e1"]
        store.close()
        witness.close()


@pytest.mark.slow
def test_a_write_that_waits_for_another_connection_is_killed_and_then_made_once(postgres: RunningPostgres) -> None:
    empty_postgres(postgres)
    store, other = open_postgres(postgres), open_postgres(postgres)
    store.upsert_segments("c1", 1, [make_segment("a")])
    results: list[Applied] = []
    asking = threading.Thread(target=lambda: results.append(persistently(lambda: correct(store, "e1", "a", 3))))
    with contextlib.suppress(StoreUnavailable), other._database.writing() as connection:
        connection.exec_driver_sql("SELECT * FROM conversations FOR UPDATE")
        asking.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        eventually(lambda: connection.exec_driver_sql(waiting).scalar() == 1)
        postgres.kill()
    postgres.start()
    asking.join()
    assert results == [Applied(1)]
    assert [write.write_key for write in store.history("c1")] == ["e1"]
    store.close()
    other.close()


def test_a_conversation_that_another_connection_holds_is_given_up_in_time_and_stops_no_other(
    postgres: RunningPostgres,
) -> None:
    empty_postgres(postgres)
    store, other = open_postgres(postgres, timeout_s=SHORT_S), open_postgres(postgres)
    store.upsert_segments("c1", 1, [make_segment("a")])
    with other._database.writing() as connection:
        connection.exec_driver_sql("SELECT * FROM conversations FOR UPDATE")
        with pytest.raises(StoreUnavailable, match=r"55P03|57014"):
            store.apply("c1", "1", "k1", [Label("a", 1)])
        assert store.upsert_segments("c2", 1, [make_segment("a")])
    assert persistently(lambda: store.apply("c1", "1", "k1", [Label("a", 1)])) == Applied(1)
    store.close()
    other.close()


def test_two_processes_that_meet_a_new_database_make_its_tables_once(postgres: RunningPostgres) -> None:
    with postgres.superuser() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS omi_diarization CASCADE")
    stores = [open_postgres(postgres) for _ in range(3)]
    threads = [threading.Thread(target=store.read, args=("c1",)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.read("c1") for store in stores] == [None] * 3
    for store in stores:
        store.close()
