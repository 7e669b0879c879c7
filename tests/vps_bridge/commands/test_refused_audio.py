"""Audio that was refused leaves a trace that an operator finds; `publish` fails with it and says where to look."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from schemas.bridge import BridgeHeartbeat
from schemas.conversation import EventType, Verdict
from tests.inbox import WAIT_S
from tests.ledger_switch import read_ledger
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, audio_payload, wait_until
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.refusals import KEEP_S, MAX_KEPT, RefusedChunk

NO_AUDIO = b"neither a file nor raw samples"


def refused_of(bridge: LiveBridge, conversation_id: str) -> list[dict[str, Any]]:
    return [item for item in bridge.json("failed") if item["conversation_id"] == conversation_id]


def test_a_refused_chunk_is_listed_by_failed_and_show_and_counted(backend: Backend, bridge: LiveBridge) -> None:
    for _ in range(2):
        assert backend.audio("odd", NO_AUDIO, chunk_id="c1").verdict is Verdict.REFUSED
    backend.audio("odd", make_wav(1.0), chunk_id="c2")
    (listed,) = wait_until(lambda: [item for item in refused_of(bridge, "odd") if item["times"] == 2], "both times")
    assert (listed["chunk_id"], listed["bytes"]) == ("c1", len(NO_AUDIO))
    assert listed["sha256"] == hashlib.sha256(NO_AUDIO).hexdigest()
    assert (listed["job_id"], listed["has_audio"], listed["failure_code"]) == (None, False, "audio.undecodable")
    assert abs(listed["last_at"] - time.time()) < 600
    words = bridge.command("failed").stdout
    assert "chunk c1 of odd: 30 bytes, refused 2 times" in words
    assert "publish it again" in words
    assert [item["chunk_id"] for item in bridge.json("show", "odd")["refused_chunks"]] == ["c1"]
    assert "chunk c1 of odd" in bridge.command("show", "odd").stdout
    assert "chunks refused: omi-bridge failed" in bridge.command("jobs").stdout
    wait_until(lambda: backend.seen(BridgeHeartbeat)[-1].queue.chunks_refused > 0, "the count in the heartbeat")
    assert NO_AUDIO not in read_ledger(bridge.data_dir / "bridge")


def test_a_conversation_of_which_all_was_refused_is_shown(backend: Backend, bridge: LiveBridge) -> None:
    backend.publish(TOPICS.audio("nothing"), b"hello")
    shown = wait_until(lambda: refused_of(bridge, "nothing"), "the trace")
    assert shown[0]["chunk_id"] == ""
    assert "everything that was sent for it was refused" in bridge.command("show", "nothing").stdout
    assert bridge.json("show", "nothing")["refused_chunks"][0]["failure_code"] == "audio.undecodable"


def test_what_is_accepted_after_all_or_deleted_is_listed_no_more(backend: Backend, bridge: LiveBridge) -> None:
    wrong = audio_payload("mended", make_wav(2.0), chunk_id="c1", sha256="0" * 64)
    backend.publish(TOPICS.audio("mended"), wrong)
    wait_until(lambda: refused_of(bridge, "mended"), "the trace")
    backend.audio("mended", make_wav(2.0), chunk_id="c1")
    wait_until(lambda: not refused_of(bridge, "mended"), "the end of the trace")
    backend.audio("gone", NO_AUDIO, chunk_id="c1")
    wait_until(lambda: refused_of(bridge, "gone"), "the trace")
    backend.event("gone", EventType.DELETED)
    assert refused_of(bridge, "gone") == []


def publish_and_wait(bridge: LiveBridge, folder: Path, audio: bytes, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "notes.wav").write_bytes(audio)
    arguments = ["publish", str(folder / "notes.wav"), "--wait", "--conversation", *words]
    return subprocess.run(
        [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", *arguments],
        env=bridge.broker.environment("backend") | {"OMI_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def test_publish_that_waits_says_once_that_no_agent_is_live(
    backend: Backend, bridge: LiveBridge, tmp_path: Path
) -> None:
    done = publish_and_wait(bridge, tmp_path, make_wav(2.0), "unheard", "--timeout-s", "2")
    assert done.returncode == 1
    assert done.stderr.count("no agent is live and allowed") == 1
    assert "omi-bridge agents allow ID" in done.stderr
    assert "was not updated within" in done.stderr


def test_publish_fails_with_refused_audio_and_names_the_command(
    backend: Backend, bridge: LiveBridge, tmp_path: Path
) -> None:
    done = publish_and_wait(bridge, tmp_path, NO_AUDIO, "told")
    assert done.returncode == 1
    assert "audio.undecodable" in done.stderr
    assert "omi-bridge failed" in done.stderr
    assert wait_until(lambda: refused_of(bridge, "told"), "the trace")


def test_a_flood_of_refusals_keeps_the_latest_in_few_writes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bridge", exclusive=True)

    def refuse(number: int) -> None:
        ledger.refusals.note(RefusedChunk(f"c{number}", "k", "0" * 64, 10**30, "audio.empty", "m" * 100_000))

    for number in range(20_000):
        refuse(number)
    ledger.refusals.write(1.0)
    assert [item.conversation_id for item in ledger.refusals.latest(2)] == ["c19999", "c19998"]
    refuse(20_000)
    ledger.refusals.write(1.1)
    assert ledger.refusals.latest(1)[0].conversation_id == "c19999", "what comes at once is written together"
    ledger.refusals.write(2.0)
    assert ledger.refusals.latest(1)[0].conversation_id == "c20000"
    assert ledger.refusals.count() == MAX_KEPT
    assert sum(path.stat().st_size for path in (tmp_path / "bridge").iterdir()) < 10 * 2**20
    ledger.refusals.drop_old(time.time() + KEEP_S - 60.0)
    assert ledger.refusals.count() == MAX_KEPT
    ledger.refusals.drop_old(time.time() + KEEP_S + 60.0)
    assert ledger.refusals.count() == 0
    ledger.close()
