"""A dump of a ledger on a server that is restored brings back everything but what was erased after it was made."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

from schemas.conversation import EventType, TranscriptSegment
from tests.brokers import RunningBroker
from tests.postgres_server import PASSWORD, RunningPostgres, ledger_options
from tests.vps_bridge.ledger_server import server_of
from tests.vps_bridge.live_bridge import CALL_S, Backend, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.backup.erase_again import ErasedAgain, erase_restored
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.intake.erasure import erase_audio, erase_conversation
from vps_bridge.intake.people import People
from vps_bridge.intake.spool import SPOOL, Spool
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import NewChunk, SpeakerHints

KEPT, ERASED, SILENCED = "kept", "erased", "silenced"


class DumpedServer:
    """A database that is dumped and restored as docs/ledger-on-postgresql.md says."""

    def __init__(self, postgres: RunningPostgres, file: Path) -> None:
        self.postgres, self.file, self.database = postgres, file, postgres.new_database()

    def dump(self) -> None:
        self._run("pg_dump", "--format=custom", "--schema=omi_ledger", f"--file={self.file}", self._url)

    def restore(self) -> None:
        self._run("pg_restore", "--clean", "--if-exists", f"--dbname={self._url}", str(self.file))

    @property
    def _url(self) -> str:
        return self.postgres.url(self.database)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.postgres.programs / program), *arguments]
        done = subprocess.run(
            command, env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def server(postgres: RunningPostgres, tmp_path: Path) -> DumpedServer:
    return DumpedServer(postgres, tmp_path / "ledger.dump")


class Opened:
    """Ledger, store and spool of a bridge that is stopped."""

    def __init__(self, server: DumpedServer, root: Path) -> None:
        self.ledger = Ledger(root, exclusive=True, server=server_of(server.postgres, server.database))
        self.store, self.spool = SqliteConversations(root / STORE_FILE), Spool(root / SPOOL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
        self.ledger.close()

    def write(self) -> None:
        for name in (KEPT, ERASED, SILENCED):
            spooled = self.spool.write(make_wav(1.0))
            new = NewChunk(name, "c", "0" * 64, 1_000, spooled, "wav", duration_s=CALL_S)
            self.ledger.chunks.accept(new, SpeakerHints(), final=False)
            self.store.upsert_segments(name, 1, [TranscriptSegment(id="s", start_s=0.0, end_s=4.0, text="words")])
        self.ledger.people.add("", "anna")
        for agent in ("kept-mac", "sold-mac", "lent-mac"):
            self.ledger.agents.set_allowed(agent, allowed=True)

    def erase(self) -> None:
        """Each thing in its own way."""
        erase_conversation(ERASED, self.ledger, self.spool, self.store)
        erase_audio(SILENCED, self.ledger, self.spool)
        People(self.ledger, self.store).forget("", "anna")
        self.ledger.agents.forget("sold-mac")
        self.ledger.agents.set_allowed("lent-mac", allowed=False)

    def find_kept(self) -> dict[str, object]:
        names = (KEPT, ERASED, SILENCED)
        chunks = {name: self.ledger.chunks.of_conversation(name) for name in names}
        return {
            "conversations": sorted(self.ledger.listing.latest_first()),
            "audio": [name for name in names if any(chunk.spool_name for chunk in chunks[name])],
            "people": [person.person_id for person in self.ledger.people.of_owner("")],
            "agents": sorted(self.ledger.agents.allowed()),
        }


ALL = {
    "conversations": [ERASED, KEPT, SILENCED],
    "audio": [KEPT, ERASED, SILENCED],
    "people": ["anna"],
    "agents": ["kept-mac", "lent-mac", "sold-mac"],
}
LEFT = {"conversations": [KEPT, SILENCED], "audio": [KEPT], "people": [], "agents": ["kept-mac"]}


def test_what_was_erased_after_a_dump_is_erased_again_and_all_else_is_back(
    server: DumpedServer, tmp_path: Path
) -> None:
    root = tmp_path / "bridge"
    with Opened(server, root) as opened:
        opened.write()
        server.dump()
        opened.erase()
        assert opened.find_kept() == LEFT
    server.restore()
    with Opened(server, tmp_path / "elsewhere") as opened:
        assert opened.find_kept() == ALL, "a bridge that never saw it erased"
    with Opened(server, root) as opened:
        erased = erase_restored(opened.ledger, opened.spool, opened.store)
        assert erased == ErasedAgain(conversations=1, audio=1, people=1, agents=2)
        assert opened.ledger.conversations.unfinished_deletions() == [ERASED], "the bridge that owns it goes on"
        erase_conversation(ERASED, opened.ledger, opened.spool, opened.store)
        assert opened.find_kept() == LEFT
        opened.ledger.agents.set_allowed("lent-mac", allowed=True)
    with Opened(server, root) as opened:
        assert erase_restored(opened.ledger, opened.spool, opened.store) == ErasedAgain(), "and only once"
        assert "lent-mac" in opened.ledger.agents.allowed()


def test_an_older_dump_put_back_first_forgets_nobody_taught_anew_in_a_later_one(
    server: DumpedServer, tmp_path: Path
) -> None:
    root = tmp_path / "bridge"
    with Opened(server, root) as opened:
        opened.write()
        server.dump()
        older = server.file.rename(tmp_path / "older.dump")
        opened.erase()
        opened.ledger.people.add("", "anna")
        opened.ledger.agents.set_allowed("lent-mac", allowed=True)
        opened.ledger.copy_erasures()
        server.dump()
    later = server.file
    time.sleep(1.1)  # erasures of one second are the same line
    for server.file, again in ((older, ErasedAgain(1, 1, 1, 2)), (later, ErasedAgain())):
        server.restore()
        with Opened(server, root) as opened:
            assert erase_restored(opened.ledger, opened.spool, opened.store) == again
            opened.ledger.copy_erasures()
    with Opened(server, root) as opened:
        assert opened.find_kept() == LEFT | {"people": ["anna"], "agents": ["kept-mac", "lent-mac"]}


def test_a_bridge_knows_what_others_erased_and_no_id_is_in_its_copy(server: DumpedServer, tmp_path: Path) -> None:
    root = tmp_path / "bridge"
    with Opened(server, root) as bridge:
        bridge.write()
        bridge.ledger.copy_erasures()
        server.dump()
        command = Ledger(tmp_path / "other", exclusive=False, server=server_of(server.postgres, server.database))
        for agent in ("sold-mac", "lent-mac"):
            command.agents.forget(agent)
            bridge.ledger.copy_erasures()
        command.close()
    (copy,) = root.glob("erasures-*.log")
    assert len(copy.read_text().splitlines()) == 3, "a line for each below the first"
    assert "mac" not in copy.read_text()
    assert not list((tmp_path / "other").glob("erasures*"))
    server.restore()
    with Opened(server, root) as bridge:
        assert erase_restored(bridge.ledger, bridge.spool, bridge.store).agents == 2


@pytest.mark.long
def test_a_conversation_that_was_deleted_does_not_come_back_with_a_dump(
    own_broker: RunningBroker, own_backend: Backend, server: DumpedServer, tmp_path: Path
) -> None:
    options = ledger_options(server.postgres, server.database)
    with run_bridge(own_broker, tmp_path / "data", own_backend, **options) as bridge:
        own_backend.send_call(ERASED)
        own_backend.send_call(KEPT)
        server.dump()
        own_backend.event(ERASED, EventType.DELETED)
        wait_until(lambda: list((tmp_path / "data" / "bridge").glob("erasures-*.log")), "the bridge's own copy")
        bridge.kill()
        server.restore()
        bridge.start(own_backend)
        wait_until(lambda: bridge.is_deleted(ERASED), "its second deletion")
        assert bridge.logged("erased_again", conversations=1)
        assert bridge.json("show", KEPT)["state"] == "waiting"
