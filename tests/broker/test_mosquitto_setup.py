"""Setting a Mosquitto up, and again: what is refused, and what must stay as it was."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from broker.errors import BrokerError
from broker.listener import Listener, TlsFiles, UnencryptedListener
from broker.mosquitto import MAX_PACKET_BYTES, known_listener, provision_mosquitto
from broker.receipts import PublishOutcome
from broker.session import Incoming, MqttSession
from broker.users import read_users
from schemas.topics import Topics
from tests.brokers import REPOSITORY, RunningBroker, free_port, require_program, run_mosquitto
from tests.inbox import WAIT_S, MessageLog, eventually

TOPICS = Topics()
ACK_S = 120.0
TLS_FILES = ("tls/ca.pem", "tls/ca.key", "tls/server.pem", "tls/server.key")
FILES = ("mosquitto.conf", "passwords", "acl", "users.json")


def omi_broker(*arguments: str | Path, umask: int = 0o022) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "broker.cli", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=WAIT_S,
        umask=umask,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMI_CONFIG": "", "COLUMNS": "200"},
    )


def provision(directory: Path, listener: Listener | None = None, **options: object) -> None:
    options = {"agent_ids": (), **options}
    provision_mosquitto(directory, listener or Listener(), **options)  # type: ignore[arg-type] # as each test says


@contextlib.contextmanager
def traffic(session: MqttSession) -> Iterator[list[PublishOutcome]]:
    """Publish one message after the other meanwhile; their outcomes are complete afterwards."""
    outcomes: list[PublishOutcome] = []
    enough = threading.Event()

    def keep_publishing() -> None:
        while not enough.is_set() or not outcomes:
            outcomes.append(session.publish(TOPICS.want("studio"), b"x").wait(ACK_S))

    thread = threading.Thread(target=keep_publishing)
    thread.start()
    yield outcomes
    enough.set()
    thread.join()


def broker_of(home: Path, port: int) -> RunningBroker:
    """The broker of a directory with the users that it has now; it is not started."""
    users = {role: user for role, user in read_users(home / "users.json").items() if role != "watch"}
    command = (require_program("mosquitto", "mosquitto"), "-c", str(home / "mosquitto.conf"))
    ca_file = home / "tls" / "ca.pem"
    return RunningBroker(f"mqtts://127.0.0.1:{port}", users, home.parent / "log", "5", command, port, ca_file)


def access_of_files(directory: Path) -> dict[str, tuple[int, int, int]]:
    there = [name for name in (*FILES, *TLS_FILES) if (directory / name).exists()]
    found = {name: (directory / name).stat() for name in there}
    return {name: (known.st_uid, known.st_gid, stat.S_IMODE(known.st_mode)) for name, known in found.items()}


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users of this machine can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="omi-mosquitto-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def test_adding_an_agent_to_a_mosquitto_that_runs_as_its_own_user_locks_nobody_out(open_directory, connect):
    require_program("mosquitto", "mosquitto")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Mosquitto that becomes another user")
    home, port, mosquitto = open_directory / "omi", free_port(), pwd.getpwnam("mosquitto").pw_uid
    assert omi_broker("init", home, "--agent", "studio", "--port", str(port), "--tls", umask=0o077).returncode == 0
    running = broker_of(home, port)
    running.start()
    try:
        assert psutil.Process(running.pid).uids().effective == mosquitto != 0
        heard: MessageLog[Incoming] = MessageLog()
        bridge = connect(running, "bridge", TOPICS.want("laptop"), TOPICS.want("studio"), on_message=heard.put)
        studio = connect(running, "agent:studio")
        shutil.chown(home / "acl", 0, pwd.getpwnam("mosquitto").pw_gid)  # another way to let Mosquitto read it
        (home / "acl").chmod(0o640)
        before = access_of_files(home)
        assert before["passwords"][0] == before["tls/server.key"][0] == mosquitto
        assert before["users.json"] == before["tls/ca.key"] == (0, 0, 0o600)
        with traffic(studio) as outcomes:
            again = omi_broker("add-agent", home, "laptop", umask=0o077)
            assert "systemctl reload mosquitto" in again.stdout
            assert access_of_files(home) == before
            os.kill(running.pid, signal.SIGHUP)
            laptop = connect(broker_of(home, port), "agent:laptop", wait=False)
            eventually(lambda: laptop.connected)
            assert laptop.publish(TOPICS.want("laptop"), b"x").wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
        assert set(outcomes) == {PublishOutcome.ACKNOWLEDGED}
        heard.wait_count(len(outcomes) + 1)
        assert bridge.connected
        assert bridge.counters.reconnects == studio.counters.reconnects == 0
        assert ": Error: " not in running.log_file.read_text()
        running.restart()
        connect(broker_of(home, port), "agent:studio")
    finally:
        running.kill()


def test_who_is_not_root_and_would_take_the_files_away_is_refused(tmp_path, monkeypatch):
    provision(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    refusal = PermissionError(1, "Operation not permitted")
    monkeypatch.setattr(os, "chown", lambda *_args, **_options: (_ for _ in ()).throw(refusal))
    if os.geteuid() == 0:
        for name in FILES:
            os.lchown(tmp_path / name, 12345, -1)
    with pytest.raises(BrokerError, match=r"as root|as the user"):
        provision(tmp_path, agent_ids=("laptop",))
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own a file that is root's alone")
def test_files_that_an_earlier_version_made_roots_alone_are_told_of(tmp_path):
    provision(tmp_path)
    for name in ("passwords", "acl"):
        os.chown(tmp_path / name, 0, 0)
    told = omi_broker("init", tmp_path, "--agent", "laptop").stdout
    assert f"chown mosquitto: {tmp_path / 'passwords'} {tmp_path / 'acl'}" in told


def test_what_is_not_named_again_stays_as_it_was(tmp_path):
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_text("")
    own = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    chosen = Listener("0.0.0.0", 8883, own, True, "vps", name="vps.example", topic_root="home/omi/v2")
    provision(tmp_path / "omi", chosen)
    assert known_listener(tmp_path / "omi") == chosen
    assert omi_broker("init", tmp_path / "omi", "--agent", "laptop").returncode == 0
    assert known_listener(tmp_path / "omi") == chosen
    assert omi_broker("init", tmp_path / "omi", "--port", "8884", "--no-persistence").returncode == 0
    changed = replace(chosen, port=8884, persistence=False)
    assert known_listener(tmp_path / "omi") == changed
    lines = (tmp_path / "omi" / "acl").read_text().splitlines()
    assert "topic write home/omi/v2/bridge/vps/heartbeat" in lines


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.168.1.10", "203.0.113.7", "fe80::1", "100.63.0.1", "vps.example", "0", "127.1", "10.0.0.1"],
)
def test_a_listener_that_others_can_listen_in_on_needs_tls_or_a_word(tmp_path, host):
    with pytest.raises(UnencryptedListener, match=r"tailscale ip -4.*omi-broker init.*--insecure"):
        provision(tmp_path / "a", Listener(host))
    assert not (tmp_path / "a").exists()
    provision(tmp_path / "b", Listener(host), insecure=True)
    provision(tmp_path / "c", Listener(host, tls=TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "100.64.0.1", "100.127.255.254", "fd7a:115c:a1e0::1"]
)
def test_loopback_and_tailnet_need_neither(tmp_path, host):
    provision(tmp_path, Listener(host))
    assert f"listener 1883 {host}" in (tmp_path / "mosquitto.conf").read_text().splitlines()


def test_the_embedded_broker_refuses_an_open_listener(tmp_path):
    refused = omi_broker("run", "--host", "0.0.0.0")
    assert refused.returncode == 1
    assert "--insecure" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "127.0.0.1\nallow_anonymous true", "::1%a\nallow_anonymous true", "127.0.0.1\rx", "127.0.0.1 x"),
        *("a\x00b", "127.0.0.1\u2028x", "127.0.0.1\x85x", "*", "/run/mosquitto.sock", "-h", "#", "h\u00f6st"),
    ],
)
@pytest.mark.parametrize("insecure", [False, True])
def test_a_host_cannot_add_lines_to_the_configuration(tmp_path, host, insecure):
    for listener in (Listener(host), *([Listener(name=host)] if host else [])):
        with pytest.raises(BrokerError, match="is no address"):
            provision(tmp_path / "omi", listener, insecure=insecure)
    assert not (tmp_path / "omi").exists()


@pytest.mark.parametrize("name", ["a\nallow_anonymous true", "a\rb", "a ", "a\x1bb", "a\u2028b", "a\udc80b"])
def test_a_path_cannot_add_lines_to_the_configuration(tmp_path, name):
    for listener, directory in (
        (Listener(), tmp_path / name),
        (Listener(tls=TlsFiles(tmp_path / name, tmp_path / "key")), tmp_path / "omi"),
        (Listener(tls=TlsFiles(tmp_path / "certificate", tmp_path / name)), tmp_path / "omi"),
    ):
        with pytest.raises(BrokerError, match="configuration"):
            provision(directory, listener)
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_spaces_and_letters_of_any_language_works(tmp_path, connect):
    with run_mosquitto(tmp_path / "Größe und # mehr") as broker:
        connect(broker, "bridge")


@pytest.mark.parametrize("bad", ["+", "#", "a/b", "a\nuser bridge", "", "a b", "a" * 129, "ä", "a.b"])
def test_an_id_cannot_widen_anybodys_rights(tmp_path, bad):
    for options in ({"agent_ids": (bad,)}, {"listener": Listener(bridge_id=bad)}):
        with pytest.raises(BrokerError, match="may not stand in a topic"):
            provision(tmp_path / "omi", **options)
    with pytest.raises(Exception, match="topic root"):
        provision(tmp_path / "omi", Listener(topic_root=f"omi/{bad}/v1" if bad != "a/b" else "a//b"))
    assert not (tmp_path / "omi").exists()


def test_an_agent_may_not_have_the_bridges_id(tmp_path):
    with pytest.raises(BrokerError, match="would name an agent and a bridge"):
        provision(tmp_path, agent_ids=("bridge",))


@pytest.mark.parametrize("username", ["a\nuser bridge", "a:b", "#a", "", " a", "a b", "bridge", "+", "a\x00b"])
def test_a_username_edited_by_hand_cannot_become_another_user(tmp_path, username):
    provision(tmp_path)
    users = json.loads((tmp_path / "users.json").read_text())
    users["watch"]["username"] = username
    (tmp_path / "users.json").write_text(json.dumps(users))
    before = (tmp_path / "acl").read_text()
    with pytest.raises(BrokerError, match="username"):
        provision(tmp_path)
    assert (tmp_path / "acl").read_text() == before


def test_a_packet_that_is_too_large_costs_its_sender_the_connection_and_reaches_nobody(mosquitto, connect):
    heard: list[object] = []
    topic = TOPICS.audio("c1")
    connect(mosquitto, "bridge", topic, on_message=heard.append)
    sender = connect(mosquitto, "backend")
    assert sender.max_packet_bytes == MAX_PACKET_BYTES, "MQTT 5 announces it"
    careless = {"mqtt_version": "3.1.1", "assumed_max_packet_bytes": 2**27}
    naive = connect(mosquitto, "backend", settings=careless)
    assert naive.publish(topic, bytes(MAX_PACKET_BYTES + 1)).wait(ACK_S) is PublishOutcome.LOST
    assert sender.publish(topic, bytes(1_900_000)).wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
    eventually(lambda: len(heard) == 1)
    assert sender.counters.reconnects == 0


@pytest.mark.parametrize("umask", [0, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path, umask):
    assert omi_broker("init", tmp_path / "deep" / "omi", umask=umask).returncode == 0
    modes = {name: mode for name, (_, _, mode) in access_of_files(tmp_path / "deep" / "omi").items()}
    assert modes == {"mosquitto.conf": 0o644, "passwords": 0o600, "acl": 0o600, "users.json": 0o600}
    for directory in (tmp_path / "deep", tmp_path / "deep" / "omi"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755
