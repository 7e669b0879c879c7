"""Files that a command reads and writes: no output lies on an input, and what is read is a regular file."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mac_agent.commands.main import app
from vps_bridge.commands.main import app as bridge_app

EXIT_USAGE = 2


def omi_agent(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"OMI_CONFIG": "", "COLUMNS": "300"})


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "two.wav"
    file.write_bytes(b"RIFF and so on")
    return file


@pytest.mark.parametrize("option", ["--rttm", "--plot"])
@pytest.mark.parametrize("way", ["itself", "by another path", "hard link", "symbolic link"])
def test_the_recording_is_never_overwritten(tmp_path: Path, recording: Path, option: str, way: str) -> None:
    output = tmp_path / "out"
    if way == "hard link":
        output.hardlink_to(recording)
    elif way == "symbolic link":
        output.symlink_to(recording)
    else:
        output = recording if way == "itself" else tmp_path / "below" / ".." / recording.name
        (tmp_path / "below").mkdir()
    done = omi_agent("diarize", recording, option, output)
    assert done.exit_code == EXIT_USAGE, done.output
    assert f"{option} {output}: {recording} is read" in done.output
    assert recording.read_bytes() == b"RIFF and so on"


def test_no_two_outputs_are_one_file_and_no_reference_is_overwritten(tmp_path: Path, recording: Path) -> None:
    out, turns = tmp_path / "out.svg", tmp_path / "turns.rttm"
    (tmp_path / "link").symlink_to(out)
    turns.write_text("SPEAKER a 1 0.0 1.0 <NA> <NA> x <NA> <NA>\n")
    twice = omi_agent("diarize", recording, "--rttm", out, "--plot", tmp_path / "link")
    assert twice.exit_code == EXIT_USAGE
    assert f"{out} is what --rttm writes" in twice.output
    own = omi_agent("diarize", recording, "--rttm", turns, "--reference", turns, "--plot", out)
    assert own.exit_code == EXIT_USAGE
    assert turns.read_text().startswith("SPEAKER")


def test_a_folder_that_is_not_there_is_told_before_the_work(tmp_path: Path, recording: Path) -> None:
    done = omi_agent("diarize", recording, "--rttm", tmp_path / "none" / "a.rttm")
    assert done.exit_code == EXIT_USAGE
    assert "there is no folder" in done.output


def test_a_dash_is_no_name_of_a_file(recording: Path) -> None:
    done = omi_agent("diarize", recording, "--rttm", "-")
    assert done.exit_code == EXIT_USAGE
    assert "that is not stdout here" in done.output


def test_calibrate_does_not_write_onto_a_recording(tmp_path: Path) -> None:
    file = tmp_path / "anna" / "walk.wav"
    file.parent.mkdir()
    file.write_bytes(b"RIFF")
    done = omi_agent("calibrate", tmp_path, "--output", file)
    assert done.exit_code == EXIT_USAGE, done.output
    assert "is read: it would be overwritten" in done.output


@pytest.mark.parametrize("command", ["diarize", "calibrate", "qualify"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, command: str) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    done = omi_agent(command, pipe, "--data-dir", tmp_path)
    assert done.exit_code == EXIT_USAGE
    assert f"{pipe} is no regular file" in done.output


def test_a_pipe_teaches_no_voice(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    done = CliRunner().invoke(bridge_app, ["people", "enroll", "anna", str(pipe)], env={"COLUMNS": "300"})
    assert done.exit_code == 1
    assert "no regular file" in done.output
