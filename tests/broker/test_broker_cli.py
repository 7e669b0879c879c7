import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.cli import app
from broker.listener import Listener
from broker.mosquitto import hash_password, provision_mosquitto
from broker.session import Incoming
from schemas.topics import Topics
from tests.brokers import REPOSITORY
from tests.inbox import WAIT_S, MessageLog


def omi_broker(*arguments: str | Path, cwd: Path = REPOSITORY) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "broker.cli", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=WAIT_S,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMI_CONFIG": "", "COLUMNS": "200"},
    )


def test_port_in_use_is_a_clear_error(embedded, tmp_path):
    port = embedded.url.rpartition(":")[2]
    result = omi_broker("run", "--port", port, "--data-dir", tmp_path / "other")
    assert result.returncode == 1
    assert f"127.0.0.1:{port} is already in use" in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


def test_address_of_another_machine_is_a_clear_error(tmp_path):
    result = omi_broker("run", "--host", "203.0.113.1", "--insecure", "--port", "0", "--data-dir", tmp_path)
    assert result.returncode == 1
    assert "cannot listen on 203.0.113.1" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_run_says_when_it_is_ready_and_stops_on_a_signal(tmp_path, signal_number):
    with subprocess.Popen(
        [sys.executable, "-m", "broker.cli", "run", "--port", "0", "--data-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert str(tmp_path / "broker" / "users.json") in process.stdout.readline()
        assert process.stdout.readline().startswith("omi-broker ready mqtt://127.0.0.1:")
        process.send_signal(signal_number)
        assert process.wait(WAIT_S) == 0
        assert "Traceback" not in process.stderr.read()


def test_stops_with_clients_connected(embedded, connect):
    connect(embedded, "bridge", "omi/v1/conversations/+/audio")
    process = embedded._process
    process.terminate()
    assert process.wait(WAIT_S) == 0


def test_users_shows_passwords_only_when_asked(tmp_path, embedded):
    data_dir = embedded.log_file.parent
    password = embedded.users["agent"].password
    hidden = omi_broker("users", "--data-dir", data_dir)
    assert hidden.returncode == 0
    assert "agent" in hidden.stdout
    assert password not in hidden.stdout
    shown = json.loads(omi_broker("users", "--json", "--show-secrets", "--data-dir", data_dir).stdout)
    assert shown["users"]["agent"]["password"] == password


def test_users_before_the_first_run_says_what_to_do(tmp_path):
    result = omi_broker("users", "--data-dir", tmp_path)
    assert result.returncode == 1
    assert "omi-broker run" in result.stderr


def test_config_is_json_for_machines(tmp_path):
    result = omi_broker("config", "--json", "--data-dir", tmp_path)
    assert json.loads(result.stdout)["data_dir"] == {
        "value": str(tmp_path),
        "source": "flag",
        "description": "Where everything that must survive a restart is kept.",
    }


def test_wrong_setting_ends_with_its_name(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("keepalive_s = 'never'")
    result = omi_broker("config", "--config", config)
    assert result.returncode == 1
    assert "keepalive_s" in result.stderr
    assert "Traceback" not in result.stderr


def test_mosquitto_files_keep_secrets_and_known_users(tmp_path):
    assert omi_broker("init", tmp_path, "--agent", "studio").returncode == 0
    users = json.loads((tmp_path / "users.json").read_text())
    again = json.loads(omi_broker("init", tmp_path, "--agent", "laptop", "--json").stdout)
    assert again["users"] == ["bridge", "backend", "watch", "agent:studio", "agent:laptop"]
    later = json.loads((tmp_path / "users.json").read_text())
    assert {name: later[name] for name in users} == users
    assert "pattern" not in [line.split(" ")[0] for line in (tmp_path / "acl").read_text().splitlines()]
    for name in ("users.json", "passwords", "acl"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert users["bridge"]["password"] not in (tmp_path / "passwords").read_text()


def test_agent_id_that_could_widen_its_rights_is_refused(tmp_path):
    for agent_id in ("+", "#", "a/b", "a\nuser bridge"):
        result = omi_broker("init", tmp_path, "--agent", agent_id)
        assert result.returncode == 1, agent_id
        assert "may not stand in a topic" in result.stderr
    assert not (tmp_path / "mosquitto.conf").exists()


def test_certificate_without_key_is_refused(tmp_path):
    certificate = tmp_path / "server.pem"
    certificate.write_text("")
    result = omi_broker("init", tmp_path, "--certificate", certificate)
    assert result.returncode == 1
    assert "--key" in result.stderr


def test_password_hash_is_salted_and_repeatable():
    salt = bytes(12)
    assert hash_password("a", salt) == hash_password("a", salt)
    assert hash_password("a") != hash_password("a")
    assert hash_password("b", salt) != hash_password("a", salt)


def test_watch_sees_states_and_never_audio(mosquitto, connect):
    topics = Topics()
    inbox: MessageLog[Incoming] = MessageLog()
    connect(mosquitto, "watch", "omi/v1/#", on_message=inbox.put)
    connect(mosquitto, "backend").publish(topics.audio("c1"), b"private").wait(WAIT_S)
    connect(mosquitto, "bridge").publish(topics.accepted("c1"), b"{}").wait(WAIT_S)
    inbox.wait_for(lambda message: message.topic == topics.accepted("c1"))
    assert [message.topic for message in inbox.items] == [topics.accepted("c1")]


def test_default_listener_is_loopback(tmp_path):
    provisioned = provision_mosquitto(tmp_path, Listener(), agent_ids=())
    lines = provisioned.files.config.read_text().splitlines()
    assert [line.split()[2] for line in lines if line.startswith("listener")] == ["127.0.0.1"]
    assert "allow_anonymous false" in lines


def test_help_shows_an_example():
    for command in ("run", "users", "init", "add-agent", "rotate", "check", "config"):
        assert f"omi-broker {command}" in CliRunner().invoke(app, [command, "--help"]).output
