"""Real brokers, each in its own process, for any test that needs one.

    with run_mosquitto(tmp_path) as broker:
        settings = broker.settings("bridge", BridgeSettings, data_dir=tmp_path / "bridge")

The broker listens on a free port of loopback. Its users are `bridge`, `backend`, `watch` and
`agent` (at Mosquitto the agent whose id is `AGENT_ID`; further ones are `agent:<id>`).
"""

import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from broker.access import Access, access_of
from broker.listener import Listener, TlsFiles
from broker.mosquitto import provision_mosquitto
from broker.nats import permissions_of
from broker.settings import BrokerSettings
from broker.users import Credentials, generate_password, generate_users
from schemas.topics import DEFAULT_ROOT, Topics
from tests.inbox import WAIT_S

REPOSITORY = Path(__file__).parents[1]
AGENT_ID = "studio"

S = TypeVar("S", bound=BrokerSettings)


@dataclass
class RunningBroker:
    """A broker process. After `kill` or `stop`, `restart` brings it back on the same port."""

    url: str
    users: Mapping[str, Credentials]
    log_file: Path
    mqtt_version: str
    _command: Sequence[str]
    _port: int
    _ca_file: Path | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=REPOSITORY)
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"the broker did not start:\n{self.log_file.read_text()}")

    def stop(self) -> None:
        """SIGTERM and wait."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """SIGKILL and wait."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def port(self) -> int:
        return self._port

    def reached_at(self, port: int) -> "RunningBroker":
        """The same broker for clients that reach it at another port, such as a proxy's."""
        return replace(self, url=f"mqtt://127.0.0.1:{port}", _process=None)

    def environment(self, role: str) -> dict[str, str]:
        """Variables with which a child process reaches this broker, beside those of this process."""
        user = self.users[role]
        environment = {
            **os.environ,
            "OMI_BROKER_URL": self.url,
            "OMI_BROKER_USERNAME": user.username,
            "OMI_BROKER_PASSWORD": user.password,
            "OMI_MQTT_VERSION": self.mqtt_version,
            "OMI_HTTP_PORT": "0",  # many bridges run on one machine: a test that uses the HTTP door sets a port
        }
        return environment | ({"OMI_BROKER_CA_FILE": str(self._ca_file)} if self._ca_file else {})

    def settings(self, role: str, cls: type[S] = BrokerSettings, **values: Any) -> S:  # type: ignore[assignment] # S is BrokerSettings then
        """Settings of a program that reaches this broker as `role`, with short pauses."""
        user = self.users[role]
        return cls(
            **{
                "broker_url": self.url,
                "broker_username": user.username,
                "broker_password": user.password,
                "broker_ca_file": self._ca_file,
                "mqtt_version": self.mqtt_version,
                "reconnect_min_s": 0.05,
                "reconnect_max_s": 0.5,
                **values,
            }
        )


def require_program(name: str, package: str) -> str:
    """The path of an installed program; without it, the test that needs it is skipped with its name."""
    # Debian installs brokers in directories that are only on the PATH of root.
    program = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
    if program is None:
        pytest.skip(f"no {name} is installed here (apt install {package}, brew install {package})")
    return program


@contextlib.contextmanager
def run_mosquitto(
    directory: Path,
    *,
    agent_ids: Sequence[str] = (AGENT_ID,),
    further_bridges: Sequence[str] = (),
    topic_root: str = DEFAULT_ROOT,
    max_packet_bytes: int | None = None,
    tls: TlsFiles | None = None,
    ca_file: Path | None = None,
    extra_lines: str = "",
    mqtt_version: str = "auto",
) -> Iterator[RunningBroker]:
    """A Mosquitto with the configuration that `omi-broker init` writes."""
    program = require_program("mosquitto", "mosquitto")
    port = free_port()
    home = directory / f"mosquitto-{port}"
    listener = Listener(port=port, tls=tls, topic_root=topic_root)
    provisioned = provision_mosquitto(home, listener, agent_ids=agent_ids, further_bridges=further_bridges)
    with provisioned.files.config.open("a") as config:
        config.write(f"log_type all\nuser {getpass.getuser()}\n{extra_lines}\n")
        if max_packet_bytes is not None:
            config.write(f"max_packet_size {max_packet_bytes}\n")
    broker = RunningBroker(
        url=f"{'mqtts' if tls else 'mqtt'}://127.0.0.1:{port}",
        users={**provisioned.users, "agent": provisioned.users[f"agent:{agent_ids[0]}"]},
        log_file=home / "mosquitto.log",
        mqtt_version=mqtt_version,
        _command=(program, "-c", str(provisioned.files.config)),
        _port=port,
        _ca_file=ca_file,
    )
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@contextlib.contextmanager
def run_embedded(
    directory: Path, *, topic_root: str = DEFAULT_ROOT, mqtt_version: str = "3.1.1"
) -> Iterator[RunningBroker]:
    """The embedded broker, as `omi-broker run` starts it."""
    port = free_port()
    data_dir = directory / f"embedded-{port}"
    users = generate_users(data_dir)
    command = (sys.executable, "-m", "broker.cli", "run", "--port", str(port), "--data-dir", str(data_dir))
    broker = RunningBroker(
        url=f"mqtt://127.0.0.1:{port}",
        users=users,
        log_file=data_dir / "broker.log",
        mqtt_version=mqtt_version,
        _command=(*command, "--topic-root", topic_root),
        _port=port,
    )
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@contextlib.contextmanager
def run_nats(
    directory: Path,
    *,
    agent_ids: Sequence[str] = (AGENT_ID,),
    topic_root: str = DEFAULT_ROOT,
    mqtt_version: str = "auto",
) -> Iterator[RunningBroker]:
    """A NATS server as docs/brokers.md says to set it up: JetStream, MQTT, a user with its rights for each program."""
    program = require_program("nats-server", "nats-server")
    port, topics = free_port(), Topics(topic_root)
    home = directory / f"nats-{port}"
    home.mkdir(parents=True)
    access = {role: access_of(role, topics) for role in ("backend", "watch")}
    access["bridge"] = access_of("bridge", topics, sender_id=Listener.bridge_id)
    access |= {f"agent:{name}": access_of("agent", topics, sender_id=name) for name in agent_ids}
    users = {role: Credentials(role.replace(":", "-"), generate_password()) for role in access}
    (home / "nats.conf").write_text(json.dumps(nats_config(home, port, users, access)))
    broker = RunningBroker(
        url=f"mqtt://127.0.0.1:{port}",
        users={**users, "agent": users[f"agent:{agent_ids[0]}"]},
        log_file=home / "nats.log",
        mqtt_version=mqtt_version,
        _command=(program, "-c", str(home / "nats.conf")),
        _port=port,
    )
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def nats_config(
    home: Path, mqtt_port: int, users: Mapping[str, Credentials], access: Mapping[str, Access]
) -> dict[str, object]:
    """The configuration of a NATS server; `users` and `access` are by role."""
    return {
        "server_name": "omi",
        "host": "127.0.0.1",
        "port": free_port(),
        "jetstream": {"store_dir": str(home / "jetstream")},
        "max_payload": 2 * 2**20,  # the largest packet that we send
        "mqtt": {"host": "127.0.0.1", "port": mqtt_port},
        "authorization": {
            "users": [
                {
                    "user": users[role].username,
                    "password": users[role].password,
                    "permissions": permissions_of(access[role]),
                }
                for role in access
            ]
        },
    }


def free_port() -> int:
    """A TCP port of loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
