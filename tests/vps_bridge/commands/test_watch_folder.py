"""`omi-bridge watch-folder` on a real broker and bridge: what is dropped is labelled once, whatever ends in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.agent import AgentControl
from schemas.codec import encode
from schemas.conversation import EventType
from schemas.corrections import Correction, CorrectionKind
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.commands.dropped_folder import SRT, Folder
from tests.vps_bridge.http.door import answering
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, Backend, LiveBridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.client.dropped_files import SettledFiles, find_recordings
from vps_bridge.client.folder_records import RECORDS_FOLDER
from vps_bridge.commands.main import app
from vps_bridge.commands.watch_folder import LOOK_S


@pytest.fixture
def folder(mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path) -> Folder:
    path = tmp_path / "recordings"
    path.mkdir()
    return Folder(path, mosquitto)


@pytest.fixture
def agent(mosquitto: RunningBroker, bridge: LiveBridge) -> Iterator[ScriptedAgent]:
    with answering(mosquitto) as running:
        yield running


def test_recordings_are_labelled_beside_themselves_and_only_once(
    folder: Folder, bridge: LiveBridge, agent: ScriptedAgent
) -> None:
    folder.drop("call.wav", tone=21).chmod(0o640)
    (folder.path / "call.srt").write_text(SRT)
    folder.drop("bare.wav", tone=22)
    (folder.path / "notes.txt").write_text("nothing to do with it")
    code, news, _ = folder.once()
    assert code == 0
    assert {(each["file"], each["outcome"]) for each in news} == {
        (name, outcome) for name in ("bare.wav", "call.wav") for outcome in ("accepted", "done")
    }
    assert "SPEAKER_00: word 1\n" in folder.text("call.wav.srt")
    assert "SPEAKER_01: word 2\n" in folder.text("call.wav.srt")
    assert (folder.path / "call.wav.srt").stat().st_mode & 0o777 == 0o640, "who may hear it may read it"
    for name in ("call.wav", "bare.wav"):
        assert len(folder.text(f"{name}.rttm").splitlines()) == len(CALL_TURNS)
        assert json.loads(folder.text(f"{name}.json"))["is_final"] is True
    before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir() if path.is_file()}
    shutil.copy(folder.path / "bare.wav", folder.path / "copy.wav")
    code, news, _ = folder.once()
    assert (code, [(each["file"], each["outcome"]) for each in news]) == (0, [("copy.wav", "done")])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert folder.text("copy.wav.rttm") == folder.text("bare.wav.rttm")
    assert len(bridge.jobs(folder.conversation("bare.wav"))) == 1


def test_what_cannot_be_diarized_says_why_beside_it_and_is_tried_again_once_it_is_mended(
    folder: Folder, agent: ScriptedAgent
) -> None:
    (folder.path / "noise.wav").write_text("this is no audio")
    folder.drop("call.wav", tone=23)
    (folder.path / "call.srt").write_text(SRT.replace("-->", "->", 1))
    code, news, _ = folder.once()
    assert (code, sorted(each["outcome"] for each in news)) == (1, ["refused", "refused"])
    assert "audio.undecodable" in folder.text("noise.wav.error.txt")
    assert "call.srt: line 2 is no times of a cue" in folder.text("call.wav.error.txt")
    assert folder.once()[:2] == (0, []), "it was said"
    (folder.path / "noise.wav.error.txt").unlink()
    assert [each["outcome"] for each in folder.once()[1]] == ["refused"], "deleting it asks for another try"
    (folder.path / "call.srt").write_text(SRT)
    (folder.path / "noise.wav").unlink()
    assert folder.once()[0] == 0
    assert "call.wav.error.txt" not in folder.names()
    assert "word 6" in folder.text("call.wav.srt")


def test_odd_names_are_labelled_too_and_what_cannot_be_keeps_no_other_waiting(
    folder: Folder, agent: ScriptedAgent
) -> None:
    endless = f"a{'x' * 247}.wav"  # no room for .error.txt
    odd = ("line\nbreak.wav", "zoë 🎙️ \u202e.wav", os.fsdecode(b"no-utf-8-\xff.wav"))
    for place, name in enumerate((endless, *odd)):
        folder.drop(name, tone=30 + place)
    (folder.path / "folder.wav").mkdir()
    os.mkfifo(folder.path / "pipe.wav")
    code, news, _ = folder.once()
    assert code == 1
    assert {each["file"]: each["outcome"] for each in news} == {endless: "refused", **dict.fromkeys(odd, "done")}
    assert all((folder.path / f"{name}.rttm").exists() for name in odd)
    assert [each["file"] for each in folder.once()[1]] == [endless]


def test_a_transcript_is_found_whatever_wrote_the_names(folder: Folder, agent: ScriptedAgent) -> None:
    folder.drop(unicodedata.normalize("NFD", "zoë.WAV"), tone=34)
    (folder.path / "zoë.SRT").write_text(SRT)
    assert folder.once()[0] == 0
    assert "word 6" in folder.text(unicodedata.normalize("NFD", "zoë.WAV.srt"))


def test_a_file_that_was_not_written_here_is_never_replaced(folder: Folder, agent: ScriptedAgent) -> None:
    folder.drop("call.wav", tone=24)
    (folder.path / "call.wav.srt").write_text("mine")
    (folder.path / "elsewhere").write_text("mine too")
    (folder.path / "call.wav.json").symlink_to(folder.path / "elsewhere")
    code, news, _ = folder.once()
    assert code == 0
    assert {each["outcome"]: each["files"] for each in news} == {
        "accepted": [],
        "kept": ["call.wav.json", "call.wav.srt"],
        "done": ["call.wav.rttm"],
    }
    assert (folder.text("call.wav.srt"), folder.text("elsewhere")) == ("mine", "mine too")
    folder.drop("call.wav", tone=25)  # another recording under the name: what was written here is replaced
    before = folder.text("call.wav.json"), (folder.path / "call.wav.rttm").stat().st_ino
    assert folder.once()[0] == 0
    assert folder.text("call.wav.json") == before[0]
    assert (folder.path / "call.wav.rttm").stat().st_ino != before[1]


def test_what_an_agent_could_not_diarize_is_said_beside_what_there_is(
    folder: Folder, mosquitto: RunningBroker, bridge: LiveBridge
) -> None:
    folder.drop("call.wav", tone=27)
    with answering(mosquitto, lambda agent, offer: agent.fail(offer, FailureCode.AUDIO_TOO_LONG, retryable=False)):
        code, news, _ = folder.once()
    assert (code, [each["outcome"] for each in news]) == (1, ["accepted", "failed"])
    assert "audio.too_long: as the test told it\nThen: raise OMI_MAX_AUDIO_S" in folder.text("call.wav.error.txt")
    assert folder.text("call.wav.rttm") == ""


def test_what_is_odd_about_a_recording_is_said_with_its_labels_as_by_publish(
    folder: Folder, mosquitto: RunningBroker, bridge: LiveBridge
) -> None:
    odd = ("audio.clipped: 3 % of it", "audio.quiet")

    def answer(agent: ScriptedAgent, offer: AgentControl) -> None:
        result = agent.result(offer, CALL_TURNS).model_copy(update={"warnings": odd})
        agent.send_raw(offer.conversation_id or "", encode(result))

    folder.drop("call.wav", tone=35)
    with answering(mosquitto, answer):
        arguments = ["watch-folder", str(folder.path), "--once", "--settle-s", "0.3"]
        done = CliRunner().invoke(app, arguments, env=mosquitto.environment("backend"))
    assert done.exit_code == 0, done.output
    told = "call.wav: done: who spoke when is beside it (call.wav.rttm, call.wav.json, call.wav.srt)"
    assert done.stdout.splitlines()[1:] == [told, *(f"warning: {words}" for words in odd)]
    shutil.copy(folder.path / "call.wav", folder.path / "copy.wav")
    (news,) = folder.once()[1]
    assert news["warnings"] == list(odd)


def test_a_transcript_that_comes_later_joins_the_conversation_of_its_recording(
    folder: Folder, bridge: LiveBridge, agent: ScriptedAgent
) -> None:
    folder.drop("call.wav", tone=34)
    conversation = folder.conversation("call.wav")
    folder.once()
    assert "word 2" not in folder.text("call.wav.srt")
    (folder.path / "call.srt").write_text(SRT)
    code, news, said = folder.once()
    assert (code, [each["outcome"] for each in news]) == (0, ["accepted", "done"]), said
    assert "SPEAKER_01: word 2\n" in folder.text("call.wav.srt")
    assert [row["text"] for row in bridge.json("show", conversation)["segments"]][:2] == ["word 1", "word 2"]
    assert len(bridge.jobs(conversation)) == 1, "its audio is diarized once"
    assert folder.once()[:2] == (0, [])
    (folder.path / "call.srt").write_text(SRT.replace("word 2", "another word"))
    code, news, said = folder.once()
    assert (code, [each["outcome"] for each in news]) == (0, ["accepted", "done"]), said
    assert "SPEAKER_01: another word\n" in folder.text("call.wav.srt")
    assert folder.conversation("call.wav") != conversation


def test_a_broken_transcript_that_is_taken_away_again_leaves_the_recording_its_labels(
    folder: Folder, bridge: LiveBridge, mosquitto: RunningBroker
) -> None:
    folder.drop("call.wav", tone=36)
    conversation = folder.conversation("call.wav")
    assert folder.once("--timeout-s", "2")[1][0]["outcome"] == "accepted"
    (folder.path / "call.srt").write_text("broken")
    code, news, _ = folder.once("--timeout-s", "2")
    assert (code, [each["outcome"] for each in news]) == (1, ["refused"])
    (folder.path / "call.srt").unlink()
    with answering(mosquitto):
        code, news, said = folder.once()
    assert (code, [each["outcome"] for each in news]) == (0, ["done"]), said
    assert "call.wav.rttm" in folder.names()
    assert "call.wav.error.txt" not in folder.names()
    (folder.path / "call.srt").write_text(SRT)
    assert folder.once()[0] == 0
    assert "SPEAKER_01: word 2\n" in folder.text("call.wav.srt"), "the mended one joins, as if there had been no other"
    assert len(bridge.jobs(conversation)) == 1


@pytest.mark.parametrize("later", [False, True])
def test_two_files_of_one_sound_of_which_one_has_a_transcript_are_both_labelled_and_follow_corrections(
    folder: Folder, bridge: LiveBridge, mosquitto: RunningBroker, later: bool
) -> None:
    first = folder.drop("a.wav", tone=39)
    conversation = folder.conversation("a.wav")
    with answering(mosquitto):
        if later:
            assert folder.once()[0] == 0
        shutil.copy(first, folder.path / "b.wav")
        (folder.path / "b.srt").write_text(SRT)
        code, news, said = folder.once()
        assert code == 0, (news, said)
        assert {f"{name}.wav.{form}" for name in "ab" for form in ("rttm", "json", "srt")} <= set(folder.names())
        assert len(bridge.jobs(conversation)) == 1
        running = folder.start()
        try:
            bridge.command("correct", conversation, "name", "0", "anna")
            wait_until(lambda: " anna " in folder.text("b.wav.rttm"), "the name to be beside the one")
            wait_until(lambda: " anna " in folder.text("a.wav.rttm"), "the name to be beside the other")
        finally:
            running.send_signal(signal.SIGTERM)
            running.communicate(timeout=WAIT_S)


def test_what_was_written_beside_one_recording_is_no_transcript_of_another(
    folder: Folder, agent: ScriptedAgent
) -> None:
    folder.drop("call.wav", tone=37)
    folder.drop("call.wav.mp3", tone=38)
    for _ in range(2):
        code, news, said = folder.once()
        assert code == 0, (news, said)
    assert {"call.wav.srt", "call.wav.mp3.srt"} <= set(folder.names())
    assert not [name for name in folder.names() if name.endswith(".error.txt")]


def test_a_recording_whose_conversation_was_deleted_is_not_awaited_for_ever(
    folder: Folder, bridge: LiveBridge, backend: Backend
) -> None:
    folder.drop("call.wav", tone=33)
    running = folder.start()
    line = running.stdout.readline() if running.stdout else ""
    assert json.loads(line)["outcome"] == "accepted"
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=WAIT_S)
    backend.event(folder.conversation("call.wav"), EventType.DELETED)
    code, news, _ = folder.once()
    assert (code, [each["outcome"] for each in news]) == (1, ["refused"])
    assert "its conversation was deleted" in folder.text("call.wav.error.txt")


def test_killed_before_the_labels_came_it_goes_on_where_it_was_and_ends_at_sigterm(
    folder: Folder, mosquitto: RunningBroker, bridge: LiveBridge, backend: Backend
) -> None:
    records = folder.path / RECORDS_FOLDER
    with ScriptedAgent(mosquitto, "first") as agent:
        running = folder.start()
        path = folder.path / "call.wav"
        audio = make_wav(CALL_S, tone=26)
        with path.open("wb") as file:  # it grows for longer than it takes to settle
            for begin in range(0, len(audio), 100_000):
                file.write(audio[begin : begin + 100_000])
                file.flush()
                threading.Event().wait(0.1)
        wait_until(lambda: any(b'"accepted"' in each.read_bytes() for each in records.glob("*.json")), "accepted")
        running.kill()
        running.communicate(timeout=WAIT_S)
        conversation = folder.conversation("call.wav")
        offer = agent.wait_offer(conversation)
        assert list(agent.pull(offer).values()) == [audio], "all of it, and nothing before it was whole"
        agent.answer(offer, CALL_TURNS)
        wait_until(lambda: bridge.jobs(conversation)[0]["state"] == "done" or None, "the labels, heard by nobody")
        running = folder.start()
        wait_until(lambda: (folder.path / "call.wav.srt").exists() or None, "the files")
        join = Correction(kind=CorrectionKind.SAME_VOICE, speaker_ids=(0, 1))
        backend.event(conversation, EventType.CORRECTED, corrections=(join,))
        wait_until(lambda: "SPEAKER_01" not in folder.text("call.wav.srt") or None, "the correction")
        code, _, said = folder.once()
        assert (code, "another `omi-bridge watch-folder` watches" in said) == (1, True)
        running.send_signal(signal.SIGTERM)
        output, errors = running.communicate(timeout=WAIT_S)
    assert running.returncode == 0, errors
    assert [json.loads(line)["outcome"] for line in output.splitlines()] == ["done", "done"]
    assert len(bridge.jobs(conversation)) == 1


def test_a_name_that_is_no_text_does_not_end_the_watching(
    folder: Folder, bridge: LiveBridge, agent: ScriptedAgent
) -> None:
    process = folder.start()
    try:
        wait_until(lambda: (folder.path / RECORDS_FOLDER).exists() or None, "the start")
        folder.drop(os.fsdecode(b"caf\xe9.wav"), tone=91)  # as Latin-1 wrote it, on a disk of other days
        folder.drop("later.wav", tone=92)
        written = [folder.path / os.fsdecode(b"caf\xe9.wav.srt"), folder.path / "later.wav.srt"]
        wait_until(
            lambda: process.poll() is not None or all(file.exists() for file in written) or None,
            "the files, or the end",
        )
        time.sleep(2 * LOOK_S)  # it looks at what it wrote itself, too
        assert process.poll() is None, process.communicate()[1]
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S)
    assert process.returncode == 0


def test_a_folder_that_goes_away_ends_the_watching_and_says_so(folder: Folder, bridge: LiveBridge) -> None:
    process = folder.start()
    folder.drop("call.wav", tone=93)
    assert process.stdout is not None
    assert '"accepted"' in process.stdout.readline()
    folder.path.rename(folder.path.with_name("elsewhere"))
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "is it still there?" in said
    assert "Traceback" not in said


def test_a_recording_is_taken_when_it_and_its_transcript_have_stopped_changing(tmp_path: Path) -> None:
    audio, settled = tmp_path / "call.WAV", SettledFiles(2.0)
    (tmp_path / ".hidden.wav").write_bytes(b"x")
    (tmp_path / "link.wav").symlink_to(audio)
    (tmp_path / "empty.wav").touch()

    def look(now_s: float) -> list[str]:
        return [each.audio.name for each in settled.look(find_recordings(tmp_path), now_s)]

    audio.write_bytes(b"x")
    assert (look(0.0), look(1.9), look(2.0)) == ([], [], ["call.WAV"])
    audio.write_bytes(b"xx")
    assert (look(3.0), look(4.9), look(5.0)) == ([], [], ["call.WAV"])
    (tmp_path / "call.json").write_text("[]")
    assert (look(6.0), look(8.0)) == ([], ["call.WAV"])
    (recording,) = find_recordings(tmp_path)
    assert recording.transcript == tmp_path / "call.json"
    before = recording.digest()
    (tmp_path / "call.json").write_text("[{}]")
    assert find_recordings(tmp_path)[0].digest() != before
