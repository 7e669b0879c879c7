"""`omi-bridge` as a person meets it: examples, words that help, JSON for machines, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.conversation import EventType, TranscriptSegment
from schemas.corrections import Correction, CorrectionKind
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import answering
from tests.vps_bridge.live_bridge import CALL_TURNS, STARTED_AT, Backend, LiveBridge
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.commands.main import app

COMMANDS = [
    *("run", "publish", "import", "show", "conversations", "jobs", "agents", "history", "undo", "watch", "config"),
    *("failed", "retry", "cancel", "purge", "correct", "redo", "doctor", "page", "people", "export", "join"),
    *("backup", "restore", "watch-folder", "ping", "install", "uninstall", "status", "spool-key"),
    *(("agents", "allow"), ("agents", "deny"), ("agents", "drain")),
]


def words(command: str | tuple[str, ...]) -> list[str]:
    return [command] if isinstance(command, str) else list(command)


def test_every_command_is_listed_here():
    registered = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert registered | {"agents", "correct", "people"} == {command for command in COMMANDS if isinstance(command, str)}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(words(command)))
def test_help_shows_an_example(command):
    done = CliRunner().invoke(app, [*words(command), "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 0
    assert f"omi-bridge {' '.join(words(command))}" in done.output


@pytest.mark.parametrize("command", ["merge", "split", "segment", "name"])
def test_help_of_a_correction_shows_an_example(command):
    done = CliRunner().invoke(app, ["correct", "call-1", command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 0
    assert f"omi-bridge correct call-1 {command}" in done.output


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def test_config_tells_where_each_value_came_from_and_masks_the_password(tmp_path: Path):
    file = tmp_path / "omi.toml"
    file.write_text('broker_username = "bridge"\n[bridge]\nstale_s = 45.0\n')
    done = run(
        *("config", "--json", "--config", str(file), "--data-dir", str(tmp_path)),
        OMI_BROKER_PASSWORD="hunter2-secret",
        OMI_MAX_ATTEMPTS="7",
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert "hunter2" not in done.stdout + done.stderr
    assert shown["broker_password"]["value"] == "********"
    assert (shown["stale_s"]["value"], shown["stale_s"]["source"]) == (45.0, f"file {file}")
    assert (shown["max_attempts"]["value"], shown["max_attempts"]["source"]) == (7, "environment OMI_MAX_ATTEMPTS")
    assert shown["data_dir"]["source"] == "flag"
    assert shown["grace_s"]["source"] == "default"


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        (("config",), {"OMI_STALE_S": "soon"}, 2, "stale_s"),
        (("show", "a.b"), {}, 2, "no dot"),
        (("jobs",), {}, 1, "omi-bridge run"),
        (("agents", "allow", "my mac"), {}, 2, "no dot"),
        (("publish", "no-such-file.wav", "-c", "c1"), {}, 2, "no-such-file"),
    ],
)
def test_a_mistake_is_answered_with_words_and_an_exit_code(tmp_path, arguments, environment, code, said):
    done = run(*arguments, OMI_DATA_DIR=str(tmp_path), **environment)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_is_not_there_is_named(tmp_path: Path):
    file = tmp_path / "a.wav"
    file.write_bytes(make_wav(1.0))
    where = {"OMI_BROKER_URL": "mqtt://127.0.0.1:9", "OMI_DATA_DIR": str(tmp_path)}
    done = run("publish", str(file), "-c", "c1", **where)
    assert done.returncode == 1
    assert "mqtt://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_conversation_from_publish_to_undo(mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge) -> None:
    assert {agent["agent_id"] for agent in bridge.json("agents")} == {"first", "second"}
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("life")
        agent.answer(agent.wait_offer("life"), CALL_TURNS)
        before = backend.wait_updated("life")
        (job,) = bridge.jobs("life")
        assert (job["state"], job["agent_id"]) == ("done", "first")
        assert "life" in bridge.command("jobs", "--state", "done").stdout
        assert bridge.json("jobs", "--state", "failed") == []
        (write,) = bridge.json("history", "life")
        assert write["version"] == 1
        assert len(write["changes"]) == len(before.changed) > 0
        assert bridge.json("undo", "life", "1") == {"conversation_id": "life", "undone": 1, "version": 2}
        after = backend.wait_updated("life", version=before.updated_version + 1)
    assert {label.speaker for label in after.segments if label.id in {item.id for item in before.changed}} == {
        "SPEAKER_00"
    }, "what a person undid counts as a person's label"
    (listed,) = [item for item in bridge.json("conversations") if item["conversation_id"] == "life"]
    assert (listed["state"], listed["updated_version"]) == ("final", after.updated_version)
    assert "final" in bridge.command("show", "life").stdout


def answer_undo(bridge: LiveBridge, answer: str) -> subprocess.CompletedProcess[bytes]:
    """Run `undo many 1` at a terminal and type an answer."""
    person, terminal = os.openpty()
    try:
        os.write(person, answer.encode())
        command = [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "undo", "many", "1"]
        return subprocess.run(
            command, env=bridge.environment(), stdin=terminal, capture_output=True, timeout=WAIT_S, check=False
        )
    finally:
        os.close(person)
        os.close(terminal)


def test_an_undo_of_more_than_ten_labels_asks_first(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    halves = [(start + half, start + half + 2.0) for start, _, _ in CALL_TURNS for half in (0.0, 2.0)]
    segments = [
        TranscriptSegment(id=f"m{place}", start_s=start, end_s=end, text="word", speaker=f"SPEAKER_0{5 + place % 2}")
        for place, (start, end) in enumerate(halves)
    ]
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.event("many", EventType.STARTED, started_at=STARTED_AT)
        backend.event("many", EventType.SEGMENTS, segments=tuple(segments))
        backend.audio("many", make_wav(30.0, tone=12), captured_at=STARTED_AT)
        backend.event("many", EventType.COMPLETED, chunks=1)
        agent.answer(agent.wait_offer("many"), CALL_TURNS)
        assert len(backend.wait_updated("many").changed) == len(segments)
    refused = bridge.command("undo", "many", "1", check=False)
    assert refused.returncode == 1
    assert "12 labels" in refused.stderr
    assert "--yes" in refused.stderr
    assert answer_undo(bridge, "n\n").returncode == 1
    assert [write["version"] for write in bridge.json("history", "many")] == [1]
    assert answer_undo(bridge, "y\n").returncode == 0
    assert [write["undoes"] for write in bridge.json("history", "many")][:2] == [None, 1]


@pytest.mark.parametrize("command", [("show", "never"), ("history", "never"), ("undo", "never", "1")])
def test_an_unknown_conversation_is_exit_code_1(bridge: LiveBridge, command: tuple[str, ...]) -> None:
    done = bridge.command(*command, check=False)
    assert done.returncode == 1
    assert "never was never heard of" in done.stderr.replace("conversation ", "")


def test_a_write_that_is_not_there_cannot_be_undone(backend: Backend, bridge: LiveBridge) -> None:
    backend.audio("untouched", make_wav(1.0))
    done = bridge.command("undo", "untouched", "4", check=False)
    assert done.returncode == 1
    assert "omi-bridge history untouched" in done.stderr


def import_lines(bridge: LiveBridge, file: Path, starts: list[float], *arguments: str) -> dict[str, Any]:
    """Import lines of two seconds that begin there, and return what the command says as JSON, with its stderr.

    The conversation is called as the file.
    """
    file.write_text(json.dumps([{"start": start, "end": start + 2.0, "text": "word"} for start in starts]))
    environment = bridge.broker.environment("backend") | {"OMI_DATA_DIR": str(bridge.data_dir)}
    done = run("import", str(file), "-c", file.stem, "--json", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said | {"stderr": done.stderr}


def test_what_a_shorter_transcript_leaves_of_an_earlier_one_is_said_and_removed(
    backend: Backend, bridge: LiveBridge, tmp_path: Path
) -> None:
    file, lines = tmp_path / "again.json", [f"again-{n:05d}" for n in range(5)]
    assert import_lines(bridge, file, [0.0, 3.0, 6.0, 9.0, 12.0])["left"] == []
    named = Correction(kind=CorrectionKind.SEGMENT_IS, segment_id=lines[4], person_id="anna")
    assert backend.event("again", EventType.CORRECTED, corrections=(named,)).reason is None

    said = import_lines(bridge, file, [0.0, 3.0])
    assert (said["removed"], said["left"]) == (0, [lines[4], *lines[2:4]])
    gone, kept = (line.removeprefix("omi-bridge: ") for line in said["stderr"].splitlines()[-2:])
    assert gone.startswith(
        "2 segments (again-00002, again-00003) of an earlier transcript are not in this file and stay"
    )
    assert kept == "1 segments (again-00004) are not in this file and stay, because a person labelled them"

    said = import_lines(bridge, file, [0.0, 3.0], "--replace")
    assert (said["removed"], said["left"]) == (2, [lines[4]])
    stored = [segment["id"] for segment in bridge.json("show", "again")["segments"]]
    assert stored == [*lines[:2], lines[4]]

    said = import_lines(bridge, file, [0.0, 3.0, 6.0, 9.0, 60.0])
    assert (said["left"], said["moved"]) == ([], [lines[4]])
    assert "carry the label that a person gave to what was said at another time" in said["stderr"]


@pytest.mark.parametrize("command", ["import", "publish"])
def test_a_second_part_that_stands_in_place_of_the_first_is_said(
    backend: Backend, bridge: LiveBridge, tmp_path: Path, command: str
) -> None:
    """Its times begin anew, and segments without ids are numbered from the first: the first part's words are gone."""
    name, file, audio = f"parts-{command}", tmp_path / "part.srt", tmp_path / "part.wav"
    audio.write_bytes(make_wav(1.0))
    environment = bridge.broker.environment("backend") | {"OMI_DATA_DIR": str(bridge.data_dir)}
    arguments = ["import", str(file)] if command == "import" else ["publish", str(audio), "--transcript", str(file)]

    def send(*cues: tuple[int, str]) -> str:
        lines = [
            f"{n}\n00:00:{at:02d},000 --> 00:00:{at + 2:02d},000\n{said}\n" for n, (at, said) in enumerate(cues, 1)
        ]
        file.write_text("\n".join(lines))
        done = run(*arguments, "-c", name, **environment)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "overwritten" not in send((1, "Hello."), (5, "How are you?"))
    assert "overwritten" not in send((1, "Hello!"), (5, "How were you?")), "the same lines, with better words"
    assert "overwritten" not in send((0, "Oh."), (1, "Hello!"), (5, "How were you?")), "all is there, a line later"
    said = send((10, "Fine."), (14, "And you?"))
    assert f"2 segments ({name}-00000, {name}-00001) of an earlier transcript are overwritten" in said
    assert "import all parts as one file" in said


def test_whose_label_moves_to_the_line_beside_it_is_said_though_the_two_touch(
    backend: Backend, bridge: LiveBridge, tmp_path: Path
) -> None:
    file, line = tmp_path / "beside.json", "beside-00002"
    starts = [0.0, 2.0, 4.0, 6.0]
    import_lines(bridge, file, starts)
    named = Correction(kind=CorrectionKind.SEGMENT_IS, segment_id=line, person_id="anna")
    assert backend.event("beside", EventType.CORRECTED, corrections=(named,)).reason is None
    assert import_lines(bridge, file, [start + 0.4 for start in starts])["moved"] == [], "the same line, a little later"
    said = import_lines(bridge, file, [0.0, 1.0, 2.6, 4.4, 6.4])
    assert said["moved"] == [line]
    assert "1 segments (beside-00002) carry the label that a person gave" in said["stderr"]


def test_times_that_cannot_be_are_said_when_the_transcript_is_imported(bridge: LiveBridge, tmp_path: Path) -> None:
    file, words = tmp_path / "odd.json", [{"word": "far", "start": 500.0, "end": 501.0}]
    rows = [{"start": 5.0, "end": 3.0, "text": "back"}, {"start": 6.0, "end": 8.0, "text": "far", "words": words}]
    file.write_text(json.dumps([*rows, {"start": 9.0, "end": 9.0, "text": "short"}]))
    done = run("import", str(file), "-c", "odd", "--json", **bridge.broker.environment("backend"))
    assert done.returncode == 0, done.stderr
    backwards, outside = json.loads(done.stdout)["warnings"]
    assert backwards.startswith("times.end_before_start: 1 of 3 segments end before they start, first odd-00000")
    assert outside.startswith("times.words_outside: of 1 of 3 segments, first odd-00001")
    assert f"omi-bridge: {backwards}" in done.stderr


def test_publish_and_import_as_a_person_would(mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path) -> None:
    audio, transcript = tmp_path / "call.wav", tmp_path / "call.json"
    audio.write_bytes(make_wav(30.0))
    rows = [{"id": f"p{n}", "start": start, "end": end, "text": "word"} for n, (start, end, _) in enumerate(CALL_TURNS)]
    transcript.write_text(json.dumps(rows))
    environment = mosquitto.environment("backend")
    done = run("import", str(transcript), "-c", "person", "--json", **environment)
    assert done.returncode == 0, done.stderr
    sent = {"conversation_id": "person", "segments": 6}
    assert json.loads(done.stdout) == sent | {"removed": 0, "left": [], "moved": [], "overwritten": [], "warnings": []}
    with answering(mosquitto):  # what other tests left to be done, too
        program = subprocess.Popen(
            [
                *(sys.executable, "-c", "from vps_bridge.commands.main import main; main()"),
                *("publish", str(audio), "-c", "person", "--wait", "--json", "--timeout-s", str(WAIT_S)),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        out, _ = program.communicate(timeout=WAIT_S)
    assert program.returncode == 0
    answer = json.loads(out)
    assert answer["updated"]["state"] == "final"
    assert answer["bytes"] == audio.stat().st_size
