"""Files that a bridge of commit 2aebd9b left when it was killed at work: this one finishes the work.

`upgrades/` holds them as SQL, as that commit's own code wrote them: a conversation that was done, one that a person had
taken labels back in, one deleted, two leased, one whose job had failed, one whose audio was in no job yet.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from schemas.conversation import EventType, Verdict
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, Backend, LiveBridge, run_bridge
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.intake.spool import SPOOL
from vps_bridge.ledger.ledger import FILE_NAME

UPGRADES = Path(__file__).parent / "upgrades"
SENT = {hashlib.sha256(audio).hexdigest(): audio for audio in (make_wav(CALL_S, tone=tone) for tone in range(1, 10))}
FOREVER = {"OMI_KEEP_AUDIO_MAX_S": "1e10", "OMI_KEEP_AUDIO_S": "1e10", "OMI_KEEP_FAILED_AUDIO_S": "1e10"}


def write_old_files(root: Path) -> None:
    """Write the databases and the audio that the old bridge left."""
    (root / SPOOL).mkdir(parents=True)
    for source, name in (("ledger-2aebd9b.sql", FILE_NAME), ("conversations-2aebd9b.sql", STORE_FILE)):
        with closing(sqlite3.connect(root / name)) as connection:
            connection.executescript((UPGRADES / source).read_text())
    with closing(sqlite3.connect(root / FILE_NAME)) as connection:
        chunks = connection.execute("SELECT spool_name, sha256 FROM chunks WHERE spool_name IS NOT NULL").fetchall()
    for name, sha256 in chunks:
        (root / SPOOL / name).write_bytes(SENT[sha256])


@pytest.fixture
def upgraded(own_broker: RunningBroker, own_backend: Backend, tmp_path: Path) -> Iterator[LiveBridge]:
    write_old_files(tmp_path / "data" / "bridge")
    with run_bridge(own_broker, tmp_path / "data", own_backend, **FOREVER) as running:
        yield running


@pytest.mark.long
def test_work_in_flight_of_an_old_bridge_is_finished_by_this_one(
    own_broker: RunningBroker, own_backend: Backend, upgraded: LiveBridge
) -> None:
    backend, bridge = own_backend, upgraded
    assert backend.wait_updated("corrected", version=2).segments, "what nobody confirmed is offered again"
    with ScriptedAgent(own_broker, "first") as agent:  # still allowed
        for name in ("leased", "beside"):
            agent.answer(agent.wait_offer(name), CALL_TURNS)
            assert {label.speaker_id for label in backend.wait_updated(name).segments} == {0, 1}
        backend.event("gathered", EventType.COMPLETED, chunks=1)
        agent.answer(agent.wait_offer("gathered"), CALL_TURNS)
        assert backend.wait_updated("gathered").segments
        (failed,) = bridge.json("failed")
        bridge.command("retry", failed["job_id"])
        agent.answer(agent.wait_offer("failed"), CALL_TURNS)
        assert backend.wait_updated("failed", version=2).failed_jobs == 0
    done = bridge.json("show", "done")
    assert [row["speaker_id"] for row in done["segments"]] == [0, 1, 0, 1, 0, 1]
    assert backend.event("deleted", EventType.STARTED).verdict is Verdict.DISCARDED
    assert backend.audio("gathered", make_wav(CALL_S, tone=7), chunk_id="g-1").reason == "chunk.id_conflict"
    bridge.command("redo", "corrected", "2")
    assert [write["kind"] for write in bridge.json("history", "corrected")] == ["apply", "undo", "redo"]


def test_an_old_file_is_rewritten_once_so_that_it_can_shrink(tmp_path: Path) -> None:
    root = tmp_path / "bridge"
    write_old_files(root)
    store = SqliteConversations(root / STORE_FILE)
    before = store.read("done")
    assert store.free_pages(100) == 0
    assert store.make_shrinkable()
    assert store.read("done") == before
    store.close()
    with closing(sqlite3.connect(root / STORE_FILE)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
