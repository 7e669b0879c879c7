"""Joining a broker by invitation: from a file, standard input or a prompt into the settings of each program."""

import getpass
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broker.invitation import read_invitation_file, write_invitation
from broker.mosquitto_setup import Wanted, change_password, set_up_mosquitto
from broker.settings import load_settings
from mac_agent.commands.main import app as agent_app
from mac_agent.settings import AgentSettings
from tests.brokers import REPOSITORY, RunningBroker, free_port, require_program
from tests.inbox import WAIT_S
from vps_bridge.commands.main import app as bridge_app
from vps_bridge.settings import BridgeSettings

QUICK = ("--wait", "0.5")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a broker with TLS that runs."""
    program = require_program("mosquitto", "mosquitto")
    directory, port = tmp_path_factory.mktemp("join") / "omi", free_port()
    set_up_mosquitto(directory, Wanted(tls=True, port=port, agent_ids=("first",), bridge_id="vps"))
    own = directory.parent / "own.conf"  # it must not become another user, who could not read these files
    own.write_text(f"{(directory / 'mosquitto.conf').read_text()}\nuser {getpass.getuser()}\n")
    command = (program, "-c", str(own))
    broker = RunningBroker(f"mqtts://127.0.0.1:{port}", {}, directory.parent / "log", "5", command, port)
    broker.start()
    yield directory
    broker.kill()


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    for name in ("OMI_BROKER_URL", "OMI_BROKER_USERNAME", "OMI_BROKER_PASSWORD", "OMI_BROKER_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMI_DATA_DIR", str(tmp_path / "data"))
    file = tmp_path / "config" / "config.toml"
    monkeypatch.setenv("OMI_CONFIG", str(file))
    return file


def join(app, *words: str | Path, said: str | None = None) -> Result:
    environment = {"NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, ["join", *(str(word) for word in words)], input=said, env=environment)


def test_an_agent_joins_and_is_told_what_comes_next(home, config):
    invitation = read_invitation_file(home / "invitations" / "agent-first")
    done = join(agent_app, home / "invitations" / "agent-first", *QUICK)
    assert done.exit_code == 0, done.output
    assert "omi-bridge agents allow first" in done.output
    assert "no heartbeat of a bridge" in done.output, "silence is explained"
    assert invitation.password not in done.output
    settings = load_settings(AgentSettings, flags={}, role="agent").settings
    assert (settings.agent_id, settings.broker_url) == ("first", invitation.url)
    assert settings.broker_ca_file is not None
    for file in (config, settings.broker_ca_file):
        assert file.stat().st_mode & 0o777 == 0o600


def test_bridge_and_backend_join_beside_each_other(home, config):
    for role in ("bridge", "backend"):
        text = (home / "invitations" / role).read_text()
        done = join(bridge_app, *(["-"] if role == "bridge" else []), said=text)
        assert done.exit_code == 0, done.output
        assert "the broker lets it in" in done.output
    found = {role: load_settings(BridgeSettings, flags={}, role=role).settings for role in ("bridge", "backend")}
    assert {role: settings.broker_username for role, settings in found.items()} == {role: role for role in found}
    assert {settings.bridge_id for settings in found.values()} == {"vps"}, "the backend reads the bridge's settings too"
    assert config.stat().st_mode & 0o777 == 0o600


def test_an_invitation_of_another_program_or_of_before_a_rotate_is_named(home, config, tmp_path):
    wrong = join(agent_app, home / "invitations" / "bridge")
    assert wrong.exit_code == 1
    assert "this invitation is the bridge's: omi-bridge join takes it" in wrong.output
    assert not config.exists()
    wrong = join(bridge_app, home / "invitations" / "agent-first")
    assert "omi-agent join takes it" in wrong.output
    change_password(home, "first")  # the running broker has not read it yet: to it this is a wrong password
    refused = join(agent_app, home / "invitations" / "agent-first", *QUICK)
    assert refused.exit_code == 1
    assert "omi-broker rotate DIR NAME" in refused.output
    assert "agents allow" not in refused.output


@pytest.mark.parametrize(("app", "name"), [(agent_app, "agent-first"), (bridge_app, "bridge")])
def test_an_old_invitation_takes_the_place_of_no_login_that_works(home, config, tmp_path, monkeypatch, app, name):
    monkeypatch.setattr("broker.join.TRIAL_TIMEOUT_S", 2.0)
    file = home / "invitations" / name
    good = read_invitation_file(file)
    config.parent.mkdir()
    assert join(app, file, *(QUICK if app is agent_app else ())).exit_code in (0, 1)
    before = (config.read_text(), sorted(path.name for path in config.parent.iterdir()))
    old = tmp_path / "old"
    for other in (replace(good, password="of-before"), replace(good, url="mqtts://127.0.0.1:1")):
        old.write_text(write_invitation(other))
        old.chmod(0o600)
        refused = join(app, old)
        assert refused.exit_code == 1
        assert "nothing was changed" in refused.output
        assert "of-before" not in refused.output
        assert (config.read_text(), sorted(path.name for path in config.parent.iterdir())) == before


def test_an_invitation_in_the_place_of_its_file_is_not_repeated(home, config):
    text = (home / "invitations" / "agent-first").read_text().strip()
    for app in (agent_app, bridge_app):
        shown = join(app, text)
        assert shown.exit_code == 1
        assert "omi-broker rotate DIR NAME" in shown.output
        assert text[20:60] not in shown.output.replace("\n", "")
        assert not config.exists()


def test_what_is_no_file_of_an_invitation_is_named(home, config, tmp_path):
    assert "is a directory" in join(agent_app, home / "invitations").output
    assert "No such file" in join(agent_app, tmp_path / "none").output
    (tmp_path / "sound").write_bytes(b"RIFF\xb7\xff")
    (tmp_path / "sound").chmod(0o600)
    assert "it is no text" in join(agent_app, tmp_path / "sound").output


def test_a_variable_that_wins_over_what_was_written_is_told_of(home, config, monkeypatch):
    monkeypatch.setenv("OMI_BROKER_URL", "mqtt://127.0.0.1:1")
    monkeypatch.setattr("vps_bridge.commands.join.CONNECT_TIMEOUT_S", 0.2)
    done = join(bridge_app, home / "invitations" / "bridge")
    assert done.exit_code == 1
    assert "the environment OMI_BROKER_URL is used instead" in done.output


def test_a_prompt_takes_the_invitation_and_does_not_show_it(home, config):
    text = (home / "invitations" / "backend").read_text()
    parent, child = pty.openpty()
    command = [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "join"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=child, stdout=child, stderr=child, start_new_session=True, env=dict(os.environ)
    ) as process:
        shown = b""
        while b"invitation" not in shown:
            shown += os.read(parent, 1024)
        os.write(parent, text.encode())
        while b"next:" not in shown:
            shown += os.read(parent, 1024)
        assert process.wait(WAIT_S) == 0
    os.close(child)
    os.close(parent)
    assert text.strip()[20:60].encode() not in shown
    assert load_settings(BridgeSettings, flags={}, role="backend").settings.broker_username == "backend"
