"""Arguments that no command can take are usage errors, one line that names the argument; nothing is done before."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from broker.cli import app as broker_app
from mac_agent.commands.main import app as agent_app
from tests.vps_bridge.commands.kept_call import KeptCall
from vps_bridge.commands.main import app as bridge_app

WIDE = {"COLUMNS": "200"}
LONG = "n" * 300


def float_options(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Return the command and the name of every option that takes a number with a fraction."""
    if not hasattr(command, "commands"):
        return [(path, each.opts[0]) for each in command.params if each.type_descriptor.annotation is float]
    return [found for name, below in command.commands.items() for found in float_options(below, (*path, name))]


PROGRAMS = {"omi-agent": agent_app, "omi-bridge": bridge_app, "omi-broker": broker_app}
FLOATS = [
    (program, path, option)
    for program, app in PROGRAMS.items()
    for path, option in float_options(typer.main.get_command(app))
]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> KeptCall:
    """A conversation that every command here leaves as it is."""
    return KeptCall(tmp_path_factory.mktemp("data"))


def test_the_options_with_numbers_are_found() -> None:
    assert ("omi-bridge", ("publish",), "--timeout-s") in FLOATS
    assert ("omi-bridge", ("people", "enroll"), "--timeout-s") in FLOATS
    assert ("omi-agent", ("doctor",), "--wait") in FLOATS


@pytest.mark.parametrize("number", ["nan", "inf", "-1"])
@pytest.mark.parametrize(("program", "path", "option"), FLOATS)
def test_no_option_takes_what_is_no_length_of_time(
    tmp_path: Path, program: str, path: tuple[str, ...], option: str, number: str
) -> None:
    file = tmp_path / "call.wav"
    file.touch()
    needed = {"publish": [str(file), "-c", "call"], "enroll": ["anna", str(file)]}.get(path[-1], [])
    done = CliRunner().invoke(PROGRAMS[program], [*path, *needed, option, number], env=WIDE)
    assert done.exit_code == 2, done.output
    assert option in done.output


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["people", "rename", "anna", ""], "NAME"),
        (["people", "rename", "anna", LONG], "NAME"),
        (["people", "rename", "anna", "Anna", "--owner", LONG], "--owner"),
        (["people", "confirm", "anna", "call", "10001"], "SPEAKER"),
        (["people", "confirm", "anna", "call", "0", "--by", LONG], "--by"),
        (["people", "enroll", "anna", "FILE", "--name", LONG], "--name"),
        (["people", "enroll", "anna", "FILE", "--owner", LONG], "--owner"),
        (["correct", "call", "merge", "0", "99999999999"], "SPEAKERS"),
        (["correct", "call", "split", ""], "SEGMENTS"),
        (["correct", "call", "split", "s-1", LONG], "SEGMENTS"),
        (["correct", "call", "segment", "", "--speaker", "1"], "SEGMENT"),
        (["correct", "call", "segment", "s-1", "--person", ""], "--person"),
        (["correct", "call", "segment", "s-1", "--speaker", "10001"], "--speaker"),
        (["correct", "call", "name", "0", ""], "PERSON"),
        (["correct", "call", "name", "0", "anna", "--by", LONG], "--by"),
        (["undo", "call", "1", "--by", LONG], "--by"),
        (["jobs", "--limit", "9" * 30], "--limit"),
    ],
)
def test_an_argument_out_of_range_is_named(call: KeptCall, tmp_path: Path, arguments: list[str], name: str) -> None:
    file = tmp_path / "call.wav"
    file.touch()
    done = call.run(*[str(file) if each == "FILE" else each for each in arguments])
    assert done.exit_code == 2, done.output
    assert "Invalid value for" in done.output
    assert name.lower() in done.output.partition("Invalid value for")[2].partition(":")[0].lower()


@pytest.mark.parametrize("arguments", [["undo", "call", "9" * 30], ["redo", "call", "9" * 30]])
def test_a_write_that_no_history_has_is_not_there(call: KeptCall, arguments: list[str]) -> None:
    done = call.run(*arguments)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit)
    assert done.output.startswith("omi-bridge: ")
