"""Erased is erased: of a person, a conversation or all of them no file holds a voice or a name, packed or not.

In PostgreSQL no row does. Its files keep deleted rows until they are rewritten, as docs/ledger-on-postgresql.md says.
"""

from __future__ import annotations

import lzma
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import inspect, text

from schemas.conversation import ConversationUpdated, EventType, Verdict
from schemas.people import PersonEventType
from tests.brokers import RunningBroker
from tests.postgres_server import PASSWORD, RunningPostgres, ledger_options, run_postgres
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.owners_backend import ALONE, CALIBRATED, OwnersBackend, person_of
from tests.vps_bridge.scripted_agent import ScriptedAgent, voice_of

NAME = "Zoe-Quartermaine"
PAGE = Path(__file__).parents[2] / "docs" / "ledger-on-postgresql.md"
VOICES = {"a": voice_of("zoe"), "b": voice_of("yves")}
AT_ONCE = {"OMI_KEEP_AUDIO_S": "0", "OMI_KEEP_SAMPLES_S": "0", "OMI_KEEP_DETAILS_S": "0.3"}
NOBODY_LISTENS = {"OMI_WEBHOOK_URL": "http://127.0.0.1:9/hook", "OMI_WEBHOOK_SECRET": "s" * 40}


def find_traces(contents: Iterable[bytes]) -> set[str]:
    """Which of the name and the two voices any of these holds, in any form that they are kept in."""
    needles: Mapping[str, tuple[bytes, ...]] = {
        "name": (NAME.encode(),),
        **{label: (vector, np.frombuffer(vector, "<f4").astype("<f2").tobytes()) for label, vector in VOICES.items()},
    }
    kept = list(contents)
    return {what for what, forms in needles.items() if any(form in content for form in forms for content in kept)}


def read_files(directory: Path) -> Iterator[bytes]:
    """Every file below a directory, and what is packed in those that are a database."""
    yield from (path.read_bytes() for path in directory.rglob("*") if path.is_file())
    for database in directory.rglob("*.sqlite3"):
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            packed = connection.execute("SELECT packed FROM packed_conversations").fetchall()
        yield from (lzma.decompress(value) for (value,) in packed)


def read_rows(server: RunningPostgres, database: str) -> Iterator[bytes]:
    """Every value of every row of ledger and store, and what is packed in it."""
    with server.superuser(database) as connection:
        for schema in ("omi_ledger", "omi_diarization"):
            tables = inspect(connection).get_table_names(schema)
            assert tables
            for table in tables:
                for row in connection.exec_driver_sql(f'SELECT * FROM {schema}."{table}"'):
                    for name, value in row._mapping.items():
                        data = value if isinstance(value, bytes) else str(value).encode()
                        yield lzma.decompress(data) if name == "packed" and value else data


Calls = tuple[ConversationUpdated, ConversationUpdated]


def rewrite_files(server: RunningPostgres, database: str) -> None:
    """What the documentation has an operator type."""
    with server.superuser(database) as connection:
        section = PAGE.read_text().partition("## Erased from the server's files too")[2]
        for statement in section.split("```text\n")[1].split("```")[0].splitlines():
            connection.execute(text(statement))


@dataclass
class KeptOnes:
    """A bridge, and wherever it keeps something."""

    bridge: LiveBridge
    server: RunningPostgres | None
    database: str = ""

    def traces(self) -> set[str]:
        found = find_traces(read_files(self.bridge.data_dir))
        return found if self.server is None else found | find_traces(read_rows(self.server, self.database))


@pytest.fixture(params=["files", pytest.param("a server", marks=pytest.mark.long)])
def kept(
    request: pytest.FixtureRequest, own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> Iterator[KeptOnes]:
    """A bridge that packs at once, with a webhook that nobody takes: what it would send waits in its outbox."""
    server: RunningPostgres | None = None
    options, database = AT_ONCE | NOBODY_LISTENS, ""
    if request.param != "files":
        server = request.getfixturevalue("own_postgres")
        database = server.new_database()
        options |= ledger_options(server, database)
        options |= {"OMI_CONVERSATIONS_URL": server.url(database), "OMI_CONVERSATIONS_SECRET": PASSWORD}
    with run_bridge(own_broker, tmp_path / "data", own_backend, **options) as running:
        running.allow("first")
        yield KeptOnes(running, server, database)


@pytest.fixture
def own_postgres() -> Iterator[RunningPostgres]:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'omi-diarization[postgres]'")
    with run_postgres("-c", "wal_recycle=off") as server:
        yield server


@pytest.fixture
def bridge(kept: KeptOnes) -> LiveBridge:
    return kept.bridge


@pytest.fixture
def people(own_broker: RunningBroker, own_backend: Backend, bridge: LiveBridge) -> Iterator[OwnersBackend]:
    with ScriptedAgent(own_broker, "first", embedding=CALIBRATED) as agent:
        yield OwnersBackend(own_backend, agent)


@pytest.fixture
def packed_calls(people: OwnersBackend, bridge: LiveBridge, kept: KeptOnes) -> Calls:
    """A call in which Zoe was confirmed, and one in which she was recognised, both packed; a later one is not."""
    people.say("zoe", PersonEventType.NAMED, name=NAME)
    people.enrol("zoe", ALONE, voices=VOICES)
    taught = people.confirm("zoe", people.call(voices=VOICES), 0)
    matched = people.call(voices=VOICES)
    found = person_of(matched, 0)
    assert found is not None
    assert found.identity == "matched"
    people.call(voices={"a": voice_of("c"), "b": voice_of("d")})
    names = {taught.conversation_id, matched.conversation_id}
    bridge.stop()
    bridge.start(people.backend)  # it looks for what can be packed
    wait_until(lambda: bridge.packed_among(names) == names, "the packing of both calls")
    assert kept.traces() == {"name", "a", "b"}
    if kept.server is not None:
        with kept.server.superuser(kept.database) as connection:
            connection.exec_driver_sql("ANALYZE")  # as its autovacuum does: values that are frequent are kept there too
    return taught, matched


def test_a_forgotten_person_is_in_no_file_though_the_calls_are_packed(
    people: OwnersBackend,
    bridge: LiveBridge,
    kept: KeptOnes,
    packed_calls: Calls,
) -> None:
    assert people.say("zoe", PersonEventType.FORGOTTEN).verdict is Verdict.ACCEPTED
    assert kept.traces() == {"b"}, "the other's voice is not hers"
    for call in packed_calls:
        people.backend.wait_updated(call.conversation_id, version=call.updated_version + 1)
    assert kept.traces() == {"b"}


@pytest.mark.slow
def test_of_deleted_calls_no_voice_is_left_and_of_whom_they_taught_no_print(
    people: OwnersBackend,
    bridge: LiveBridge,
    kept: KeptOnes,
    packed_calls: Calls,
) -> None:
    for call in packed_calls:
        assert people.backend.event(call.conversation_id, EventType.DELETED).verdict is Verdict.ACCEPTED
    wait_until(lambda: all(bridge.is_deleted(call.conversation_id) for call in packed_calls), "both deletions")
    assert kept.traces() == {"name", "a"}, "what she was enrolled with stays"
    (zoe,) = bridge.people(people.owner)
    assert [each["source"] for each in zoe["prints"]] == ["enrolment"]
    bridge.command("people", "forget", "zoe", "--owner", people.owner, "--yes")
    assert kept.traces() == set()


@pytest.mark.slow
def test_purging_and_forgetting_everything_leaves_nothing_of_anybody(
    people: OwnersBackend,
    bridge: LiveBridge,
    kept: KeptOnes,
    packed_calls: Calls,
) -> None:
    bridge.command("purge", "--older-than", "0s", "--yes")
    for person in bridge.people(people.owner):
        bridge.command("people", "forget", person["person_id"], "--owner", people.owner, "--yes")
    wait_until(lambda: all(bridge.is_deleted(call.conversation_id) for call in packed_calls), "both deletions")
    assert kept.traces() == set()
    assert bridge.json("people", "list", "--owner", people.owner)["people"] == []
    if kept.server is not None:
        assert find_traces(read_files(kept.server.directory)), "nothing rewrites the server's files by itself"
        rewrite_files(kept.server, kept.database)
        assert find_traces(read_files(kept.server.directory)) == set()
