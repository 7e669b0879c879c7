"""`omi-bridge install` and `omi-agent install` for systemd: what is written, what is called, and what is refused."""

import getpass
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.check import CheckState
from broker.service_files import choose_files
from broker.systemd_unit import ServiceProblem, SystemdService, find_user, install, query, render_unit, uninstall
from broker.unit_check import check_unit
from vps_bridge.settings import BridgeSettings

HARDENED = ("LimitCORE=0", "LimitNOFILE=65536", "PrivateTmp=true", "UMask=0077", "NoNewPrivileges=true")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemdService:
    """A service whose files are all below a folder of the test."""
    config, units = tmp_path / "etc" / "config.toml", tmp_path / "units"
    config.parent.mkdir()
    config.write_text('broker_password = "hush"\n')
    config.chmod(0o600)
    units.mkdir()
    monkeypatch.setattr("broker.systemd_unit.UNITS", units)
    return SystemdService(
        name="omi-bridge",
        description="a bridge",
        program=Path(sys.executable),
        user=getpass.getuser(),
        home=tmp_path,
        config_file=config,
        data_dir=tmp_path / "data",
    )


@pytest.fixture
def systemctl(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes a `systemctl` which notes its calls, and says that the service is in this state."""

    def make(state: str = "active") -> str:
        script = tmp_path / "systemctl"
        script.write_text(
            f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
            f'[ "$1" = show ] && printf "ActiveState={state}\\nSubState=running\\nMainPID=42\\nNRestarts=3"\nexit 0\n'
        )
        script.chmod(0o755)
        return str(script)

    return make


def test_it_is_installed_started_asked_and_removed(service: SystemdService, systemctl: Callable[[str], str]) -> None:
    program = systemctl("active")
    install(service, systemctl=program)
    calls = service.home / "calls"
    assert calls.read_text().splitlines() == ["daemon-reload", "enable omi-bridge", "restart omi-bridge"]
    assert service.unit_file.stat().st_mode & 0o777 == 0o644
    assert service.data_dir.stat().st_mode & 0o777 == 0o700
    text = service.unit_file.read_text()
    assert "hush" not in text
    assert set(HARDENED) <= set(text.splitlines())
    found = query("omi-bridge", systemctl=program)
    assert (found.runs, found.pid, found.restarts) == (True, 42, 3)
    assert uninstall(service.name, systemctl=program)
    assert not service.unit_file.exists()
    assert not uninstall(service.name, systemctl=program)
    assert service.data_dir.exists(), "data stays"


def test_a_directory_is_made_for_its_user_with_all_above_it(
    service: SystemdService, systemctl: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: dict[Path, int] = {}
    monkeypatch.setattr(os, "chown", lambda path, uid, _gid: owners.update({path: uid}))
    deep = service.home / "new" / "share" / "omi"
    install(replace(service, data_dir=deep), systemctl=systemctl("active"))
    assert owners == dict.fromkeys((deep, deep.parent, deep.parent.parent), os.getuid())
    if os.geteuid() == 0:
        other = next(account.pw_name for account in pwd.getpwall() if account.pw_uid != 0)
        with pytest.raises(ServiceProblem, match=f"chown -R {other}"):
            install(replace(service, data_dir=deep, user=other), systemctl=systemctl("active"))


def test_the_command_for_two_in_the_morning_reaches_the_files_of_the_service(service: SystemdService) -> None:
    service.unit_file.write_text(render_unit(service))
    assert f"OMI_DATA_DIR={service.data_dir}" in service.command
    assert service.command.startswith(f"sudo -H -u {service.user} ")
    [elsewhere] = check_unit("omi-bridge", data_dir=Path("/elsewhere"), config_file=service.config_file)
    assert elsewhere.verdict is CheckState.NOTE
    assert elsewhere.remedy == f"{service.command} doctor"


def test_what_would_not_start_or_would_show_a_secret_is_refused(service: SystemdService) -> None:
    service.config_file.chmod(0o644)
    with pytest.raises(ServiceProblem, match="chmod 600"):
        install(service)
    with pytest.raises(ServiceProblem, match="join INVITATION"):
        install(replace(service, config_file=service.home / "none.toml"))
    service.config_file.chmod(0o600)
    with pytest.raises(ServiceProblem, match="without spaces"):
        install(replace(service, data_dir=service.home / "my data"))
    with pytest.raises(ServiceProblem, match="is not there"):
        install(replace(service, program=service.home / "omi-bridge"))
    with pytest.raises(ServiceProblem, match="no systemd"):
        install(service, systemctl=str(service.home / "no-systemctl"))


@pytest.mark.parametrize("below", [False, True])
def test_a_file_in_the_place_of_the_data_directory_is_named(service: SystemdService, *, below: bool) -> None:
    file = service.home / "file"
    file.write_text("")
    with pytest.raises(ServiceProblem, match=rf"{file}.*--data-dir"):
        install(replace(service, data_dir=file / "below" if below else file), systemctl="true")
    assert not service.unit_file.exists()


def test_a_service_that_does_not_stop_is_not_said_to_be_removed(service: SystemdService) -> None:
    service.unit_file.write_text(render_unit(service))
    systemctl = service.home / "systemctl"
    systemctl.write_text(
        '#!/bin/sh\n[ "$1" = show ] && printf "ActiveState=active\\nMainPID=7\\n" && exit 0\n'
        'echo "Access denied" >&2\nexit 4\n'
    )
    systemctl.chmod(0o700)
    with pytest.raises(ServiceProblem, match="it still runs: systemctl disable --now omi-bridge: Access denied"):
        uninstall(service.name, systemctl=str(systemctl))
    assert service.unit_file.exists()


def test_nobody_and_root_are_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceProblem, match="useradd --system"):
        find_user("no-such-user")
    with pytest.raises(ServiceProblem, match="--user"):
        find_user("root")
    other = next(account for account in pwd.getpwall() if account.pw_uid != 0)
    monkeypatch.setenv("SUDO_USER", other.pw_name)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert find_user(None) == other
    monkeypatch.setenv("SUDO_USER", "root")  # root became another user by sudo, as the short command of the pages does
    monkeypatch.setattr(os, "geteuid", lambda: other.pw_uid)
    monkeypatch.setattr(os, "getuid", lambda: other.pw_uid)
    assert find_user(None) == other


def test_who_is_not_root_is_told_the_whole_command(service: SystemdService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.unit_file.parent.rmdir()
    with pytest.raises(ServiceProblem, match=f"sudo {service.program} install --user {service.user} --data-dir "):
        install(service, systemctl="true")


def test_the_files_are_those_that_the_users_own_commands_find(tmp_path: Path) -> None:
    marker, config = Path("bridge") / "ledger.sqlite3", tmp_path / ".config" / "omi-diarization" / "config.toml"
    assert choose_files(BridgeSettings, tmp_path, None, None, markers=(Path("absent"), marker)) == (
        config,
        tmp_path / ".local" / "share" / "omi-diarization",
    )
    (tmp_path / "bridge").mkdir()
    (tmp_path / marker).write_text("")
    assert choose_files(BridgeSettings, tmp_path, None, None, markers=(Path("absent"), marker))[1] == tmp_path, (
        "as set up before"
    )
    config.parent.mkdir(parents=True)
    config.write_text('data_dir = "/var/lib/elsewhere"\n')
    assert choose_files(BridgeSettings, tmp_path, None, None, markers=(Path("absent"), marker))[1] == Path(
        "/var/lib/elsewhere"
    )
    assert (
        choose_files(BridgeSettings, tmp_path, None, tmp_path / "own", markers=(Path("absent"), marker))[1]
        == tmp_path / "own"
    )


def test_systemd_accepts_both_units(service: SystemdService) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    for name, needs_devices in (("omi-bridge", False), ("omi-agent", True)):
        unit = replace(service, name=name, needs_devices=needs_devices, memory_max="1G")
        unit.unit_file.write_text(render_unit(unit))
        done = subprocess.run(
            ["systemd-analyze", "verify", unit.unit_file], capture_output=True, text=True, check=False
        )
        said = [line for line in (done.stdout + done.stderr).splitlines() if unit.unit_file.name in line]
        assert said == []


@pytest.mark.skipif(sys.platform != "linux", reason="on a Mac the agent's service is launchd's")
@pytest.mark.parametrize("program", ["bridge", "agent"])
def test_a_dry_run_shows_the_unit_and_changes_nothing(program: str, tmp_path: Path) -> None:
    if program == "bridge":
        from vps_bridge.commands.main import app
    else:
        pytest.importorskip("mac_agent.commands.main", reason="the agent is not installed")
        from mac_agent.commands.main import app
    user = next(account.pw_name for account in pwd.getpwall() if account.pw_uid != 0)
    words = ["install", "--dry-run", "--user", user, "--config", str(tmp_path / "c.toml"), "--data-dir", str(tmp_path)]
    done = CliRunner().invoke(app, words, env={**os.environ, "COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    assert re.search(rf"^User={user}$", done.stdout, re.MULTILINE)
    assert f"OMI_CONFIG={tmp_path}/c.toml OMI_DATA_DIR={tmp_path}" in done.output
    assert not Path(f"/etc/systemd/system/omi-{program}.service").exists()
