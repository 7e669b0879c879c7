"""A broker with TLS and without, and the heartbeats that are heard there: what a doctor's test plants faults into."""

from __future__ import annotations

import contextlib
import getpass
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker import certificates
from broker.certificates import OwnCertificates, make_certificates
from broker.listener import TlsFiles
from broker.mosquitto_setup import Wanted, set_up_mosquitto
from broker.session import MqttSession
from broker.settings import BrokerSettings
from broker.users import read_users
from schemas.agent import AgentHeartbeat, AgentState
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import encode
from schemas.topics import Topics
from tests.brokers import RunningBroker, free_port, require_program
from tests.inbox import WAIT_S

TOPICS = Topics()
BEAT_S = 0.1
LEDGER_ID = "l-planted"
VERSIONS = {"omi-diarization": "9.9"}
Beat = Callable[[], bytes]
"""Makes the bytes of a heartbeat."""


@dataclass
class PlantedBroker:
    """Where it listens, who may come in, and what beats on it."""

    home: Path
    tls_url: str
    plain_url: str
    ending_url: str
    """With TLS, and a certificate that ends within days."""
    beats: dict[str, list[Beat]] = field(default_factory=dict)
    """By the role that sends them: the beats sent ever again."""
    sessions: dict[str, MqttSession] = field(default_factory=dict)

    @property
    def ca_file(self) -> Path:
        return self.home / "tls" / "ca.pem"

    def environment(self, role: str) -> dict[str, str]:
        """Variables of a healthy program of this role."""
        user = read_users(self.home / "users.json")[role]
        return {
            "OMI_BROKER_URL": self.tls_url,
            "OMI_BROKER_USERNAME": user.username,
            "OMI_BROKER_PASSWORD": user.password,
            "OMI_BROKER_CA_FILE": str(self.ca_file),
            "OMI_MQTT_VERSION": "5",
            "OMI_RECONNECT_MIN_S": "0.05",
            "OMI_HTTP_PORT": "0",
        }

    def beat_on(self, ended: threading.Event) -> None:
        """Send all beats again and again until `ended`."""
        while not ended.wait(BEAT_S):
            for role, beats in list(self.beats.items()):
                for beat in list(beats):
                    topic = TOPICS.bridge_heartbeat("bridge")
                    if role != "bridge":
                        topic = TOPICS.agent_heartbeat(role.partition(":")[2])
                    with contextlib.suppress(Exception):
                        self.sessions[role].publish(topic, beat(), qos=0)

    def be_well(self) -> None:
        """One bridge and one agent, which it counts as live and allowed."""
        self.beats = {"bridge": [bridge_beat()], "agent:first": [agent_beat("first")]}


def bridge_beat(*, behind_s: float = 0.0, **fields: Any) -> Beat:
    """A healthy beat but for these fields; `behind_s`: by a clock that is so much late."""
    facts: dict[str, Any] = {"state": BridgeState.ONLINE, "ledger_id": LEDGER_ID, "agents_live": 1}
    facts |= {"agents_live_ids": ("first",), "instance_id": "i-bridge", "versions": VERSIONS} | fields
    return lambda: encode(BridgeHeartbeat(bridge_id="bridge", **facts, **_sent(behind_s)))


def agent_beat(agent_id: str, *, behind_s: float = 0.0, **fields: Any) -> Beat:
    """The same of an agent."""
    facts: dict[str, Any] = {"state": AgentState.ONLINE, "instance_id": f"i-{agent_id}", "versions": VERSIONS}
    facts |= {"free_capacity": 1} | fields
    return lambda: encode(AgentHeartbeat(agent_id=agent_id, **facts, **_sent(behind_s)))


def _sent(behind_s: float) -> dict[str, Any]:
    """A beat says when it was sent: it is made anew each time."""
    sent_at = datetime.now(UTC) - timedelta(seconds=behind_s)
    return {"sent_at": sent_at, "started_at": sent_at}


@contextlib.contextmanager
def run_planted_broker(directory: Path) -> Iterator[PlantedBroker]:
    """Set one up as `omi-broker init` does, with two more listeners, and let it beat."""
    program = require_program("mosquitto", "mosquitto")
    home, ports = directory / "omi", [free_port() for _ in range(3)]
    set_up_mosquitto(home, Wanted(tls=True, port=ports[0], agent_ids=("first", "second")))
    ending = _make_ending_certificate(home)
    own = directory / "own.conf"  # it must not become another user, who could not read these files
    own.write_text(
        f"{(home / 'mosquitto.conf').read_text()}\nuser {getpass.getuser()}\n"
        f"listener {ports[1]} 127.0.0.1\nlistener {ports[2]} 127.0.0.1\n"
        f"certfile {ending.certificate}\nkeyfile {ending.key}\n"
    )
    urls = [f"{'mqtt' if place == 1 else 'mqtts'}://127.0.0.1:{port}" for place, port in enumerate(ports)]
    process = RunningBroker(urls[0], {}, directory / "log", "5", (program, "-c", str(own)), ports[0])
    process.start()
    planted, ended = PlantedBroker(home, urls[0], urls[1], urls[2]), threading.Event()
    beating = threading.Thread(target=planted.beat_on, args=(ended,), daemon=True)
    try:
        for role in ("bridge", "agent:first", "agent:second"):
            values = {name.removeprefix("OMI_").lower(): text for name, text in planted.environment(role).items()}
            del values["http_port"]
            session = MqttSession(BrokerSettings(**values), client_id=f"beats-{role}", on_message=lambda _: None)  # type: ignore[arg-type] # pydantic reads text
            session.start()
            session.wait_connected(WAIT_S)
            planted.sessions[role] = session
        planted.be_well()
        beating.start()
        yield planted
    finally:
        ended.set()
        for session in planted.sessions.values():
            session.stop()
        process.kill()


def _make_ending_certificate(home: Path) -> TlsFiles:
    own = OwnCertificates.below(home)
    ending = TlsFiles(own.ca.with_name("ending.pem"), own.ca.with_name("ending.key"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "SERVER_DAYS", 5)
        make_certificates(OwnCertificates(own.ca, own.ca_key, ending), ("127.0.0.1",))
    return ending


def make_other_ca(directory: Path) -> Path:
    """A CA that has signed nothing here."""
    (directory / "tls").mkdir()
    own = OwnCertificates.below(directory)
    make_certificates(own, ("127.0.0.1",))
    return own.ca


def fake_tailscale(directory: Path, status: dict[str, Any] | str) -> Path:
    """A folder for PATH whose `tailscale` answers so."""
    folder = directory / "bin"
    folder.mkdir()
    (folder / "status.json").write_text(status if isinstance(status, str) else json.dumps(status))
    program = folder / "tailscale"
    program.write_text(f"#!/bin/sh\ncat {folder}/status.json\n")
    program.chmod(0o755)
    return folder


Plant = Callable[[Any], None]


@dataclass(frozen=True)
class PlantedFault:
    """A fault: how it is planted, which check finds it, and what that says and advises."""

    plant: Plant
    check: str
    found: str
    remedy: str = ""
    """Empty where the finding names the remedy itself."""
    verdict: str = "failed"
