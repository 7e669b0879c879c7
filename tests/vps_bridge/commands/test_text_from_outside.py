"""What people said and named never drives the terminal that shows it, and JSON is JSON all the way down."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.cli import app as broker_app
from broker.terminal import SafeConsole, make_visible, print_json, write_json
from mac_agent.commands.main import app as agent_app
from tests.vps_bridge.commands.kept_call import KeptCall
from vps_bridge.commands.main import app as bridge_app

CLEAR, TITLE, C1, TURNED = "\x1b[2J", "\x1b]0;pwned\x07", "\x9b31m", "\u202egnirts"
HOSTILE = f"good {CLEAR}{TITLE}\r{C1} \x7f {TURNED}"
UNSAFE = ("\x1b", "\x07", "\r", "\x9b", "\x7f", "\u202e")


def assert_harmless(printed: str) -> None:
    assert [character for character in UNSAFE if character in printed] == []


def test_a_transcript_does_not_drive_the_terminal(tmp_path: Path) -> None:
    call = KeptCall(tmp_path, text=HOSTILE, speaker=f"{CLEAR}Anna", message=f"why {CLEAR}")
    for command in (("show", "call"), ("show", call.job_id), ("failed",), ("jobs",), ("conversations",)):
        done = call.run(*command)
        assert done.exit_code == 0, done.output
        assert_harmless(done.output)
    shown = call.run("show", "call").output
    assert r"\x1b[2J" in shown
    assert r"\u202e" in shown
    as_json = call.run("show", "call", "--json").output
    assert_harmless(as_json)
    (segment,) = json.loads(as_json)["segments"]
    assert segment["text"] == HOSTILE


def test_what_somebody_says_who_he_is_does_not_drive_the_terminal(tmp_path: Path) -> None:
    call = KeptCall(tmp_path)
    assert call.run("correct", "call", "segment", "s-1", "--person", f"a{CLEAR}", "--by", f"b{CLEAR}").exit_code == 0
    for command in ("history", "show"):
        done = call.run(command, "call")
        assert r"\x1b[2J" in done.output
        assert_harmless(done.output)


def test_words_of_a_segment_are_objects_in_json(tmp_path: Path) -> None:
    (segment,) = json.loads(KeptCall(tmp_path, text="the beach").run("show", "call", "--json").output)["segments"]
    assert segment["words"] == [
        {"text": "the", "start_s": 0.0, "end_s": 0.5},
        {"text": "beach", "start_s": 1.0, "end_s": 1.5},
    ]
    assert segment["pieces"] == []


def test_what_json_has_no_form_for_is_no_text_in_it() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        print_json({"path": Path("a")})


def test_newlines_tabs_and_codes_of_emoji_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert make_visible("a\n\tb ü 🎉") == "a\n\tb ü 🎉"
    assert json.loads(write_json({"a": "\ud800 \x7f"})) == {"a": "\ud800 \x7f"}
    SafeConsole(markup=False).print(":warning: half \udcff")
    assert capsys.readouterr().out == ":warning: half \\udcff\n"


@pytest.mark.parametrize(
    ("app", "arguments", "name"),
    [
        (bridge_app, ["correct", "call", "merge", "0", "1", "--by", "\udcff"], "--by"),
        (bridge_app, ["correct", "call", "split", "s-1", "\udcff"], "SEGMENTS"),
        (bridge_app, ["people", "list", "--owner", "\udcff"], "--owner"),
        (bridge_app, ["people", "rename", "anna", "\udcff"], "NAME"),
        (bridge_app, ["show", "\udcff"], "NAME"),
        (bridge_app, ["retry", "\udcff"], "JOB"),
        (bridge_app, ["agents", "forget", "\udcff"], "AGENT_ID"),
        (bridge_app, ["page", "--url", "\udcff"], "--url"),
        (agent_app, ["run", "--agent-id", "\udcff"], "--agent-id"),
        (agent_app, ["fetch-model", "\udcff"], "ENGINE"),
        (broker_app, ["run", "--host", "\udcff"], "--host"),
        (broker_app, ["init", "here", "--agent", "\udcff"], "--agent"),
    ],
)
def test_an_argument_that_is_no_text_is_refused_and_named(app: object, arguments: list[str], name: str) -> None:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})  # type: ignore[arg-type] # any program
    assert done.exit_code == 2, done.output
    assert "no text in UTF-8" in done.output
    assert name.lower() in done.output.lower()


def run_bare(call: KeptCall, line: str) -> subprocess.CompletedProcess[str]:
    """Run a command line where the terminal is ASCII alone; `omi` stands for omi-bridge."""
    program = f"{sys.executable} -c 'from vps_bridge.commands.main import main; main()'"
    bare = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMI_DATA_DIR": str(call.data_dir)}
    return subprocess.run(
        ["bash", "-c", f'omi() {{ {program} "$@"; }}; {line}'],
        env=os.environ | bare,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_terminal_of_ascii_shows_escapes(tmp_path: Path) -> None:
    call = KeptCall(tmp_path, text="party 🎉")
    shown = run_bare(call, "omi show call")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert r"party \U0001f389" in shown.stdout


def test_json_for_a_terminal_of_ascii_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    print_json({"text": "party 🎉"})
    ascii_only.seek(0)
    assert json.loads(ascii_only.read()) == {"text": "party 🎉"}


def test_a_closed_output_is_no_success_and_no_traceback(tmp_path: Path) -> None:
    done = run_bare(KeptCall(tmp_path), "omi show call --json >&-")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_input_answers_no_question(tmp_path: Path) -> None:
    done = run_bare(KeptCall(tmp_path), "omi purge call <&-")
    assert done.returncode == 1
    assert done.stderr == "omi-bridge: nobody is here to confirm: say --yes\n"


def run_at_terminal(call: KeptCall, *arguments: str) -> str:
    """Run omi-bridge with a terminal as its stdout, and return what came there."""
    ours, its = os.openpty()
    program = [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", *arguments]
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with subprocess.Popen(program, stdout=its, env=os.environ | {"OMI_DATA_DIR": str(call.data_dir)}) as running:
            os.close(its)
            shown = b""
            with contextlib.suppress(OSError):  # what Linux says once the other end is closed
                while part := terminal.read(4096):
                    shown += part
        assert running.returncode == 0
    return shown.decode().replace("\r\n", "\n")  # the terminal's own line ends


@pytest.mark.parametrize("form", ["vtt", "srt", "json"])
def test_an_export_does_not_drive_the_terminal_and_is_unchanged_in_a_file(tmp_path: Path, form: str) -> None:
    call = KeptCall(tmp_path, text=HOSTILE)
    shown = run_at_terminal(call, "export", "call", "--format", form)
    assert_harmless(shown)
    assert "good" in shown
    assert call.run("export", "call", "--format", form, "--output", str(tmp_path / "kept")).exit_code == 0
    assert "\u202egnirts" in (tmp_path / "kept").read_text()
