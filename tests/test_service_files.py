"""The service files start commands that exist, keep no secret, and are what launchd and systemd can read."""

from __future__ import annotations

import plistlib
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vps_bridge.commands.main import app

ROOT = Path(__file__).resolve().parents[1]
PLIST = ROOT / "launchd" / "ai.omi.diarization.agent.plist"
UNITS = sorted((ROOT / "systemd").glob("*.service"))
SECRET = re.compile(r"(password|token|secret|credential)\w*\s*(=|</key>)", re.IGNORECASE)


def installed_plist() -> dict:
    """Return the template as its README installs it."""
    text = PLIST.read_text().replace("@REPO@", "/opt/omi").replace("@HOME@", "/home/omi")
    return plistlib.loads(text.encode())


def commands() -> list[list[str]]:
    units = re.findall(r"^ExecStart=(.+)$", "\n".join(unit.read_text() for unit in UNITS), re.MULTILINE)
    return [installed_plist()["ProgramArguments"], *(line.split() for line in units)]


def test_plist_is_complete_once_its_placeholders_are_filled():
    plist = installed_plist()
    assert "@" not in str(plist)
    assert plist["Label"] == PLIST.stem
    assert plist["KeepAlive"] is True
    assert plist["EnvironmentVariables"]["PYANNOTE_METRICS_ENABLED"] == "0"
    assert plist["Umask"] == 0o077
    assert plist["HardResourceLimits"] == {"Core": 0}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_no_service_leaves_audio_in_a_core_dump_or_in_files_of_all(unit):
    lines = unit.read_text().splitlines()
    assert "LimitCORE=0" in lines
    assert "UMask=0077" in lines


@pytest.mark.parametrize("path", [PLIST, *UNITS], ids=lambda path: path.name)
def test_service_file_keeps_no_secret(path):
    assert not SECRET.search(path.read_text())


@pytest.mark.parametrize("command", commands(), ids=lambda command: Path(command[0]).name)
def test_service_starts_a_command_that_exists(command):
    program = Path(sys.executable).parent / Path(command[0]).name
    done = subprocess.run([program, *command[1:], "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def complaints(tmp_path):
    """Return a function from a unit's text to what systemd says about it; the program is taken to be installed."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")

    def verify(text: str) -> list[str]:
        unit = tmp_path / "omi-probe.service"
        unit.write_text(re.sub(r"^ExecStart=.*", "ExecStart=/usr/bin/env", text, flags=re.MULTILINE))
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
        return [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]

    return verify


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(unit, complaints):
    assert complaints(unit.read_text()) == []


def test_the_unit_in_the_repository_is_what_install_writes_with_the_paths_of_the_set_up(monkeypatch):
    home = Path("/var/lib/omi-diarization")
    account = pwd.struct_passwd(("omi", "x", 999, 999, "", str(home), "/usr/sbin/nologin"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: account)
    monkeypatch.setattr(sys, "executable", "/opt/omi-diarization/.venv/bin/python")
    words = ["install", "--dry-run", "--user", "omi", "--data-dir", str(home)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout == (ROOT / "systemd" / "omi-bridge.service").read_text()
    assert " ".join(word for word in words if word != "--dry-run") in (ROOT / "docs" / "set-up-vps.md").read_text()


def test_systemd_would_complain_of_a_misspelt_key(complaints):
    assert len(complaints(UNITS[0].read_text().replace("UMask=", "UMaks="))) == 1
