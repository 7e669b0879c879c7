"""A cluster of three NATS servers, each in its own process, as `omi-broker nats` sets it up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from broker.nats import NatsNode, node_directory
from broker.nats_setup import ClusterSetup, WantedCluster, cluster_url, node_url, set_up_cluster
from broker.settings import BrokerSettings
from broker.users import Credentials, read_users
from tests.brokers import REPOSITORY, free_port, require_program
from tests.inbox import WAIT_S

NAMES = ("a", "b", "c")
S = TypeVar("S", bound=BrokerSettings)


@dataclass
class RunningCluster:
    """Three processes; each may be killed and started again."""

    setup: ClusterSetup
    logs: Path
    program: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)
    mqtt_version: str = "3.1.1"

    @property
    def directory(self) -> Path:
        return self.setup.directory

    @property
    def url(self) -> str:
        return cluster_url(self.setup.cluster)

    @property
    def users(self) -> dict[str, Credentials]:
        return read_users(self.directory / "users.json")

    @property
    def ca_file(self) -> Path | None:
        return self.directory / "tls" / "ca.pem" if self.setup.cluster.tls else None

    def url_of(self, name: str) -> str:
        return node_url(self.setup.cluster, self.node(name))

    def node(self, name: str) -> NatsNode:
        return next(node for node in self.setup.cluster.nodes if node.name == name)

    def store(self, name: str) -> Path:
        return node_directory(self.directory, name) / "jetstream"

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text(errors="replace")

    # ------------------------------------------------------------------------------------------ its processes

    def start(self, *names: str) -> None:
        for name in names:
            with (self.logs / f"{name}.log").open("ab") as log:
                command = (self.program, "-c", str(node_directory(self.directory, name) / "nats.conf"))
                self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> None:
        """End it in order, as systemd does."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGINT)
        process.wait(WAIT_S)

    def reload(self) -> None:
        for process in self.processes.values():
            os.kill(process.pid, signal.SIGHUP)

    def wait_ready(self, *names: str, timeout_s: float = WAIT_S) -> None:
        """Wait until each of these servers lets somebody in, for which the streams need a majority."""
        deadline_s = time.monotonic() + timeout_s
        for name in names or NAMES:
            while not self._lets_in(name):
                assert time.monotonic() < deadline_s, f"{name} lets nobody in:\n{self.log(name)[-3000:]}"
                assert self.processes[name].poll() is None, f"{name} ended:\n{self.log(name)[-3000:]}"
                time.sleep(0.1)

    def _lets_in(self, name: str) -> bool:
        from broker.errors import BrokerError
        from broker.session import MqttSession

        settings: BrokerSettings = self.settings("watch", broker_url=self.url_of(name))
        session = MqttSession(settings, client_id=f"ready-{os.urandom(4).hex()}", on_message=lambda _: None)
        session.start()
        try:
            session.wait_connected(5.0)
        except BrokerError:
            return False
        finally:
            session.stop()
        return True

    # ------------------------------------------------------------------------------------------ its clients

    def settings(self, role: str, cls: type[S] = BrokerSettings, **values: Any) -> S:  # type: ignore[assignment] # S is BrokerSettings then
        """Settings as an invitation gives them, with short pauses."""
        user = self.users[role]
        return cls(
            **{
                "broker_url": self.url,
                "broker_username": user.username,
                "broker_password": user.password,
                "broker_ca_file": self.ca_file,
                "mqtt_version": "3.1.1",
                "mqtt_qos": 0,
                "reconnect_min_s": 0.05,
                "reconnect_max_s": 0.5,
                **values,
            }
        )

    def environment(self, role: str) -> dict[str, str]:
        """Variables with which a child process reaches this cluster, beside those of this process."""
        user = self.users[role]
        environment = {
            **os.environ,
            "OMI_BROKER_URL": self.url,
            "OMI_BROKER_USERNAME": user.username,
            "OMI_BROKER_PASSWORD": user.password,
            "OMI_MQTT_VERSION": "3.1.1",
            "OMI_MQTT_QOS": "0",
            "OMI_HTTP_PORT": "0",
        }
        return environment | ({"OMI_BROKER_CA_FILE": str(self.ca_file)} if self.ca_file else {})


@contextlib.contextmanager
def run_cluster(
    directory: Path,
    *,
    agent_ids: tuple[str, ...] = ("first", "second"),
    tls: bool = False,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[RunningCluster]:
    """A cluster on loopback that lets clients in; `change` alters the configuration of each node."""
    program = require_program("nats-server", "nats-server")
    nodes = tuple(NatsNode(name, "127.0.0.1", free_port(), free_port()) for name in NAMES)
    setup = set_up_cluster(directory / "cluster", WantedCluster(nodes=nodes, tls=tls, agent_ids=agent_ids))
    if change is not None:
        for name in NAMES:
            path = node_directory(setup.directory, name) / "nats.conf"
            config = json.loads(path.read_text())
            change(config)
            path.write_text(json.dumps(config))
    cluster = RunningCluster(setup, directory, program)
    cluster.start(*NAMES)
    try:
        cluster.wait_ready()
        yield cluster
    finally:
        for name in tuple(cluster.processes):
            cluster.kill(name)
