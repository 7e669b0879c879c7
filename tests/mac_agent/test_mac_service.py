"""The service of macOS: its property list, and the calls of `launchctl`, which is a shell script here."""

from __future__ import annotations

import dataclasses
import os
import plistlib
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mac_agent.service import (
    LABEL,
    Service,
    ServiceError,
    find_secrets,
    install,
    parse_state,
    query,
    render_plist,
    uninstall,
)

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "launchd" / f"{LABEL}.plist"
GOLDEN_DAEMON = ROOT / "launchd" / "daemon" / f"{LABEL}.plist"
# The output of macOS 14, shortened. Names of fields appear again at deeper levels.
PRINTED = """\
gui/501/ai.omi.diarization.agent = {
\tactive count = 1
\ttype = LaunchAgent
\tstate = running

\targuments = {
\t\tomi-agent
\t\trun
\t}

\truns = 3
\tpid = 4242
\timmediate reason = semaphore
\tlast exit code = 1

\tresource coalition = {
\t\tID = 1234
\t\tstate = active
\t\tpid = 7
\t}
}
"""


@pytest.fixture
def service(tmp_path):
    """A LaunchAgent of a user whose home directory has a blank and an ampersand in its name."""
    home = tmp_path / "Ann & Bob"
    config = home / "config.toml"
    home.mkdir()
    config.write_text('broker_password = "hush"\n')
    config.chmod(0o600)
    return Service(program=("/opt/omi & co/bin/omi-agent",), home=home, config_file=config, uid=501, user="ann")


def test_the_service_uses_the_data_directory_that_was_named(service: Service, tmp_path: Path) -> None:
    assert "OMI_DATA_DIR" not in plistlib.loads(render_plist(service))["EnvironmentVariables"]
    named = dataclasses.replace(service, data_dir=tmp_path)
    assert plistlib.loads(render_plist(named))["EnvironmentVariables"]["OMI_DATA_DIR"] == str(tmp_path)


def test_options_of_install_that_launchd_has_no_use_for_are_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mac_agent", "install", "--daemon", "--dry-run"]
    refused = subprocess.run([*command, "--user", "ann"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "leave --user out" in refused.stderr.replace("\n", " ")
    named = subprocess.run([*command, "--data-dir", tmp_path], cwd=ROOT, capture_output=True, check=False)
    assert plistlib.loads(named.stdout)["EnvironmentVariables"]["OMI_DATA_DIR"] == str(tmp_path)


@pytest.fixture
def launchctl(tmp_path):
    """A script in place of `launchctl` that remembers whether the service is loaded, and records its calls."""
    loaded, called, printed = tmp_path / "loaded", tmp_path / "called", tmp_path / "printed"
    printed.write_text(PRINTED)
    program = tmp_path / "launchctl"
    program.write_text(f"""#!/bin/sh
echo "$*" >> '{called}'
case "$1" in
print) [ -f '{loaded}' ] && exec cat '{printed}'; echo 'Could not find service' >&2; exit 113 ;;
bootout) [ -f '{loaded}' ] || {{ echo 'Boot-out failed: 3: No such process' >&2; exit 3; }}; rm '{loaded}' ;;
bootstrap) [ -f '{loaded}' ] && {{ echo 'Bootstrap failed: 5: Input/output error' >&2; exit 5; }}; cp "$3" '{loaded}' ;;
esac
""")
    program.chmod(0o755)
    return program


def calls(launchctl: Path) -> list[str]:
    file = launchctl.parent / "called"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if not line.startswith("print ")]


@pytest.mark.parametrize(("golden", "is_daemon"), [(GOLDEN, False), (GOLDEN_DAEMON, True)], ids=["agent", "daemon"])
def test_the_property_list_is_the_one_kept_in_the_repository(golden, is_daemon):
    example = Service(
        program=("@REPO@/.venv/bin/omi-agent",),
        home=Path("@HOME@"),
        config_file=Path("@HOME@/Library/Application Support/omi-diarization/config.toml"),
        uid=501,
        user="@USER@",
        is_daemon=is_daemon,
    )
    assert render_plist(example).decode() == golden.read_text()


def test_the_property_list_starts_the_agent_at_login_and_again_when_it_ends(service):
    plist = plistlib.loads(render_plist(service))
    assert plist["ProgramArguments"] == ["/opt/omi & co/bin/omi-agent", "run"]
    assert plist["RunAtLoad"] is True
    assert plist["KeepAlive"] is True
    assert plist["ThrottleInterval"] >= 10  # launchd raises a smaller value to ten
    assert plist["Umask"] == 0o077
    assert plist["EnvironmentVariables"]["OMI_CONFIG"] == str(service.config_file)
    assert plist["EnvironmentVariables"]["OMI_LOG_FILE"] == plist["StandardErrorPath"]
    assert "UserName" not in plist


def test_a_daemon_runs_as_its_user_and_not_as_root(service):
    daemon = dataclasses.replace(service, is_daemon=True)
    plist = plistlib.loads(render_plist(daemon))
    assert plist["UserName"] == "ann"
    assert plist["EnvironmentVariables"]["HOME"] == str(service.home)
    assert str(daemon.plist_file).startswith("/Library/LaunchDaemons/")
    assert daemon.target == f"system/{LABEL}"


def test_no_property_list_of_ours_holds_a_secret(service):
    for plist in (render_plist(service), GOLDEN.read_bytes(), GOLDEN_DAEMON.read_bytes()):
        assert find_secrets(plist) == []
        assert b"hush" not in plist


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({"OMI_BROKER_PASSWORD": "x"}, []),
        ({"HF_TOKEN": "x"}, []),
        ({"OMI_BROKER_URL": "mqtt://ann:hush@vps"}, []),
        ({"X": "hf_abcdefghij"}, []),
        ({}, ["--broker-url", "mqtt://ann:hush@vps"]),
    ],
)
def test_a_secret_that_a_person_wrote_into_it_is_found(environment, arguments):
    document = {"EnvironmentVariables": environment, "ProgramArguments": ["omi-agent", "run", *arguments]}
    (found,) = find_secrets(plistlib.dumps(document))
    assert "hush" not in found, "what is found is printed"


def test_install_writes_the_file_and_starts_it_and_a_second_install_replaces_it(service, launchctl):
    install(service, launchctl=str(launchctl))
    assert service.plist_file == service.home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    assert service.plist_file.read_bytes() == render_plist(service)
    assert stat.S_IMODE(service.plist_file.stat().st_mode) == 0o644
    assert calls(launchctl)[-1] == f"bootstrap gui/501 {service.plist_file}"
    assert query(service, launchctl=str(launchctl)).pid == 4242
    changed = dataclasses.replace(service, program=("/elsewhere/omi-agent",))
    install(changed, launchctl=str(launchctl))
    assert (launchctl.parent / "loaded").read_bytes() == render_plist(changed)


def test_uninstall_stops_it_and_removes_only_the_property_list(service, launchctl):
    install(service, launchctl=str(launchctl))
    service.log_file.write_text("a line")
    assert uninstall(service, launchctl=str(launchctl))
    assert not query(service, launchctl=str(launchctl)).is_loaded
    assert not service.plist_file.exists()
    assert service.log_file.exists()
    assert service.config_file.exists()
    assert not uninstall(service, launchctl=str(launchctl))


def test_a_config_that_is_missing_or_open_to_others_is_refused_before_anything_is_written(service, launchctl):
    service.config_file.chmod(0o644)
    with pytest.raises(ServiceError, match="chmod 600"):
        install(service, launchctl=str(launchctl))
    service.config_file.unlink()
    with pytest.raises(ServiceError, match="broker_url"):
        install(service, launchctl=str(launchctl))
    assert not service.plist_file.exists()
    assert calls(launchctl) == []


def test_a_refusal_of_launchd_is_reported_with_its_message_and_the_usual_cause(service, launchctl):
    launchctl.write_text(
        "#!/bin/sh\n[ $1 = bootstrap ] && { echo 'Bootstrap failed: 125: Domain does not support' >&2; exit 125; }\n"
        "[ $1 = enable ] || exit 113\n"
    )
    with pytest.raises(ServiceError, match=r"Bootstrap failed: 125.*--daemon"):
        install(service, launchctl=str(launchctl))


def test_without_launchd_the_error_says_that_it_is_of_macos_only(service):
    with pytest.raises(ServiceError, match="macOS only"):
        install(service, launchctl="/nowhere/launchctl")


def test_the_agent_is_never_installed_for_root(service, launchctl):
    with pytest.raises(ServiceError, match="root"):
        install(dataclasses.replace(service, uid=0), launchctl=str(launchctl))


def test_only_fields_of_the_top_level_are_read_from_the_output_of_launchctl():
    state = parse_state(PRINTED)
    assert (state.state, state.pid, state.starts, state.last_exit) == ("running", 4242, 3, "1")
    waiting = parse_state("gui/501/x = {\n\tstate = spawn scheduled\n\tendpoints = {\n\t\tpid = 7\n\t}\n}\n")
    assert (waiting.state, waiting.pid) == ("spawn scheduled", None)


def omi_agent(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mac_agent.commands.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "OMI_CONFIG": str(home / "config.toml"), "OMI_BROKER_PASSWORD": "hush"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(
    sys.platform != "darwin",
    reason="does not apply: elsewhere it is systemd's unit, see tests/broker/test_systemd_unit.py",
)
def test_a_dry_run_shows_the_file_and_writes_nothing(tmp_path):
    shown = omi_agent("install", "--dry-run", home=tmp_path)
    assert shown.returncode == 0, shown.stderr
    plist = plistlib.loads(shown.stdout.encode())
    assert plist["EnvironmentVariables"]["OMI_CONFIG"] == str(tmp_path / "config.toml")
    assert Path(plist["ProgramArguments"][0]).exists()
    assert "hush" not in shown.stdout + shown.stderr
    assert "LaunchAgents" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_installing_a_daemon_explains_filevault_and_the_keychain(tmp_path):
    shown = omi_agent("install", "--dry-run", "--daemon", home=tmp_path)
    assert "FileVault" in shown.stderr
    assert "keychain" in shown.stderr
    assert "UserName" in plistlib.loads(shown.stdout.encode())


def test_logs_shows_the_last_lines_and_says_so_when_there_are_none(tmp_path):
    log = tmp_path / "agent.log"
    missing = omi_agent("logs", "--file", str(log), home=tmp_path)
    assert missing.returncode == 1
    assert "omi-agent install" in missing.stderr
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    shown = omi_agent("logs", "--file", str(log), "-n", "2", home=tmp_path)
    assert shown.stdout.splitlines() == ["line 98", "line 99"]


@pytest.mark.parametrize("command", ["install", "uninstall", "status", "logs", "doctor", "trust"])
def test_every_command_has_help_with_an_example(command, tmp_path):
    shown = omi_agent(command, "--help", home=tmp_path)
    assert shown.returncode == 0
    assert "omi-agent" in shown.stdout.split("Options")[0].split("Example:")[1]
