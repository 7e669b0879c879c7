"""`omi-bridge watch-folder` where the bridge lost what it had accepted, and where two owners have one recording."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.commands.dropped_folder import SRT, Folder
from tests.vps_bridge.http.door import answering
from tests.vps_bridge.live_bridge import Backend, LiveBridge, wait_until
from vps_bridge.client.folder_records import RECORDS_FOLDER


@pytest.fixture
def folder(mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path) -> Folder:
    path = tmp_path / "recordings"
    path.mkdir()
    return Folder(path, mosquitto)


@pytest.mark.parametrize("is_running", [False, True])
def test_a_bridge_that_was_restored_from_an_older_backup_is_sent_what_it_had_accepted_since(
    folder: Folder, bridge: LiveBridge, backend: Backend, mosquitto: RunningBroker, tmp_path: Path, is_running: bool
) -> None:
    bridge.command("backup", str(tmp_path / "before.tar"))
    folder.drop("bare.wav", tone=40)
    folder.drop("call.wav", tone=41)
    (folder.path / "call.srt").write_text(SRT)
    records = folder.path / RECORDS_FOLDER
    running = folder.start()
    wait_until(lambda: len([*records.glob("*.json")]) == 2 or None, "both to be accepted")
    if not is_running:
        running.kill()
        running.communicate(timeout=WAIT_S)
    bridge.stop()
    bridge.command("restore", str(tmp_path / "before.tar"), "--overwrite", "--yes")
    bridge.start(backend)
    with answering(mosquitto):
        if is_running:
            wait_until(lambda: {"bare.wav.srt", "call.wav.srt"} <= set(folder.names()) or None, "the labels")
            running.send_signal(signal.SIGTERM)
            running.communicate(timeout=WAIT_S)
        code, news, said = folder.once("--timeout-s", "20")
        outcomes = [] if is_running else ["done", "done"]
        assert (code, [each["outcome"] for each in news]) == (0, outcomes), said
    assert "SPEAKER_01: word 2\n" in folder.text("call.wav.srt")
    assert "SPEAKER_01" in folder.text("bare.wav.rttm")


def test_a_recording_that_two_owners_have_is_a_conversation_of_each(
    folder: Folder, bridge: LiveBridge, mosquitto: RunningBroker
) -> None:
    with answering(mosquitto):
        _drop_twice(folder, bridge)


def _drop_twice(folder: Folder, bridge: LiveBridge) -> None:
    theirs = Folder(folder.path.parent / "of-another", folder.broker)
    theirs.path.mkdir()
    shutil.copy(folder.drop("call.wav", tone=42), theirs.path)
    assert folder.once("--owner", "anna")[0] == 0
    bridge.command("correct", folder.conversation("call.wav", "anna"), "name", "0", "mother")
    assert theirs.once("--owner", "ben")[0] == 0
    assert "mother" not in theirs.text("call.wav.rttm")
    bridge.command("correct", theirs.conversation("call.wav", "ben"), "name", "1", "boss")
    running = folder.start()
    try:
        wait_until(lambda: " mother " in folder.text("call.wav.rttm") or None, "the name that its owner gave")
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=WAIT_S)
    assert "boss" not in folder.text("call.wav.rttm")
