"""What the README tells a person to type exists: every command, every flag, every file."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
MODULES = {"omi-broker": "broker.cli", "omi-agent": "mac_agent.commands.main", "omi-bridge": "vps_bridge.commands.main"}
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = sorted({line for block in BLOCKS for line in block.splitlines() if line.startswith("omi-")})


def _help(program: str, *words: str) -> str:
    app: Typer = import_module(MODULES[program]).app
    environment = {"COLUMNS": "400", "NO_COLOR": "1", "TERM": "dumb"}
    done = CliRunner().invoke(app, [*words, "--help"], env=environment)
    assert done.exit_code == 0, f"{program} {words}: {done.output}"
    return done.output


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_in_the_readme_exists_with_its_flags(line: str) -> None:
    program, *words = shlex.split(line)
    command = [word for word in words if not word.startswith("-")][:1]
    text = _help(program, *command)
    if command == ["agents"] and len(words) > 1:
        assert words[1] in text
    for flag in (word for word in words if word.startswith("-")):
        assert flag in text, f"{flag} is not an option of {program} {command}"


def test_every_target_in_the_readme_is_in_the_makefile() -> None:
    targets = set(re.findall(r"`?make ([a-z-]+)`?", README))
    defined = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert targets <= defined | {"sure"}


def test_every_file_the_readme_links_to_is_here() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
