"""The faults that are planted for `omi-agent doctor`: one function each, and the table of what must be said of it."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker import systemd_unit
from broker.users import read_users
from mac_agent.outbox import EntryKind, Outbox, OutboxEntry
from mac_agent.weights.pipelines import trust_directory
from schemas.agent import AgentState
from schemas.bridge import BridgeState
from tests.mac_agent.small_hub import PIPELINE_FILES
from tests.planted_broker import PlantedBroker, PlantedFault, agent_beat, bridge_beat, fake_tailscale, make_other_ca

PAGE_BYTES = 4096
SELF = {"TailscaleIPs": ["100.64.0.5"], "DNSName": "mac.tail1234.ts.net."}
HOURS_S = 7_200.0


@dataclass
class Mac:
    """A healthy agent's files, settings and broker, for one test."""

    broker: PlantedBroker
    data_dir: Path
    config: Path
    patch: pytest.MonkeyPatch
    scratch: Path

    def set(self, **values: object) -> None:
        for name, value in values.items():
            self.patch.setenv(f"OMI_{name.upper()}", str(value))

    def become(self, role: str) -> None:
        user = read_users(self.broker.home / "users.json")[role]
        self.set(broker_username=user.username, broker_password=user.password)

    def tailscale(self, status: dict[str, Any] | str) -> None:
        self.patch.setenv("PATH", f"{fake_tailscale(self.scratch, status)}:{os.environ['PATH']}")

    def unit(self, text: str) -> None:
        units = self.scratch / "units"
        units.mkdir()
        (units / "omi-agent.service").write_text(text)
        self.patch.setattr(systemd_unit, "UNITS", units)

    def pipeline(self) -> Path:
        own = self.scratch / "pipeline"
        for name, content in PIPELINE_FILES.items():
            (own / name).parent.mkdir(parents=True, exist_ok=True)
            (own / name).write_bytes(content)
        self.set(engine="pyannote", pipeline_dir=own)
        return own


def outbox_file(mac: Mac) -> Path:
    """An outbox in which a result waits for hours."""
    path = mac.data_dir / "outbox.sqlite"
    outbox = Outbox(path, retry_s=1.0, retry_max_s=2.0)
    outbox.put(OutboxEntry("j-1", "l-1", "ledger", "call", EntryKind.TURNS, b"x" * PAGE_BYTES))
    outbox.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET stored_at = ?", (time.time() - HOURS_S,))
    return path


def fill_outbox(mac: Mac) -> None:
    outbox_file(mac)


def damage_outbox(mac: Mac) -> None:
    path = outbox_file(mac)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(os.urandom(path.stat().st_size - PAGE_BYTES))


def untrusted(mac: Mac) -> None:
    mac.pipeline()


def trusted(mac: Mac) -> Path:
    own = mac.pipeline()
    trust_directory(mac.data_dir, own)
    return own


def tampered(mac: Mac) -> None:
    own = trusted(mac)
    (own / "embedding" / "pytorch_model.bin").write_bytes(b"other")


def no_data_dir(mac: Mac) -> None:
    (mac.scratch / "file").write_text("")
    mac.set(data_dir=mac.scratch / "file" / "data", inbox_dir=mac.scratch)


def open_config(mac: Mac) -> None:
    mac.config.write_text('broker_password = "hush"\n')
    mac.config.chmod(0o644)


def bridge(*beats: dict[str, Any]) -> Any:
    return lambda mac: mac.broker.beats.update({"bridge": [bridge_beat(**fields) for fields in beats]})


def agent(*beats: dict[str, Any]) -> Any:
    return lambda mac: mac.broker.beats.update({"agent:first": [agent_beat("first", **fields) for fields in beats]})


def nobody_listens() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"mqtts://127.0.0.1:{probe.getsockname()[1]}"


def expiring(days: float) -> dict[str, Any]:
    key_expiry = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    return {"BackendState": "Running", "Self": SELF | {"KeyExpiry": key_expiry}}


UNIT = f"[Service]\nUser=root\nExecStart={sys.executable} run\n"
FAULTS: dict[str, PlantedFault] = {
    # the broker, and the way to it
    "wrong password": PlantedFault(lambda m: m.set(broker_password="no"), "broker", "OMI_BROKER_PASSWORD"),
    "nobody listens": PlantedFault(lambda m: m.set(broker_url=nobody_listens()), "broker", "OMI_BROKER_URL"),
    "wrong CA": PlantedFault(
        lambda m: m.set(broker_ca_file=make_other_ca(m.scratch)), "broker", "signed by no CA that OMI_BROKER_CA_FILE"
    ),
    "no CA": PlantedFault(lambda m: m.patch.delenv("OMI_BROKER_CA_FILE"), "broker", "Join with an invitation"),
    "TLS spoken to a port without": PlantedFault(
        lambda m: m.set(broker_url=m.broker.plain_url.replace("mqtt:", "mqtts:")), "broker", "begins with mqtt://"
    ),
    "no TLS spoken to a port with": PlantedFault(
        lambda m: m.set(broker_url=m.broker.tls_url.replace("mqtts:", "mqtt:")), "broker", "begins with mqtts://"
    ),
    "a name the certificate is not for": PlantedFault(
        lambda m: m.set(broker_url=m.broker.tls_url.replace("127.0.0.1", "localhost")), "broker", "init DIR --name"
    ),
    "a certificate that ends": PlantedFault(
        lambda m: m.set(broker_url=m.broker.ending_url), "certificate", "in 4 days", "omi-broker rotate DIR"
    ),
    "another agent's user": PlantedFault(lambda m: m.become("agent:second"), "topics", "want", "omi-broker add-agent"),
    "another topic root": PlantedFault(
        lambda m: m.set(topic_root="other/v1"), "topics", "want", "omi-broker add-agent"
    ),
    "packets too small for audio": PlantedFault(
        lambda m: m.set(assumed_max_packet_bytes=100_000, mqtt_version="3.1.1"),
        "broker",
        "packets of up to 100,000",
        "max_packet_size",
    ),
    # this machine
    "a config file that others can read": PlantedFault(open_config, "config file", "others can read it", "chmod 600"),
    "a data directory that others can write into": PlantedFault(
        lambda m: m.data_dir.chmod(0o777), "data directory", "others may write", "chmod 700"
    ),
    "a data directory that cannot be": PlantedFault(no_data_dir, "data directory", "cannot be used", "OMI_DATA_DIR"),
    "a full disk": PlantedFault(lambda m: m.set(max_job_bytes=10**18), "disk", "GB free", "Make room"),
    "weights that nobody trusted": PlantedFault(untrusted, "weights", "omi-agent trust"),
    "weights that were changed": PlantedFault(tampered, "weights", "embedding/pytorch_model.bin"),
    "an engine that is none": PlantedFault(lambda m: m.set(engine="embedded-nothing"), "weights", "embedded-nothing"),
    "a device that is not here": PlantedFault(lambda m: m.set(device="tpu"), "device", "tpu is set", "OMI_DEVICE"),
    "a damaged outbox": PlantedFault(damage_outbox, "outbox", "is damaged", "rm "),
    "a result nobody settles": PlantedFault(fill_outbox, "outbox", "the oldest for 120 min", "omi-bridge doctor"),
    # the bridge and the agent itself
    "no bridge": PlantedFault(bridge(), "bridge", "no heartbeat", "omi-bridge run"),
    "a stopped bridge": PlantedFault(bridge({"state": BridgeState.STOPPED}), "bridge", "stopped", "omi-bridge run"),
    "a bridge that takes no audio": PlantedFault(
        bridge({"accepting": False}), "bridge", "takes no audio", "omi-bridge doctor", verdict="note"
    ),
    "a bridge that does not answer": PlantedFault(lambda _: None, "topics", "did not answer", "OMI_AGENT_ID"),
    "nobody has allowed it": PlantedFault(
        bridge({"agents_waiting": ("first",)}), "allowed", "waits", "omi-bridge agents allow first"
    ),
    "a wrong clock": PlantedFault(bridge({"behind_s": 90}), "clock", "ours is +", "timedatectl set-ntp"),
    "an agent that does not run": PlantedFault(agent(), "agent", "not running", "omi-agent run", verdict="note"),
    "two processes of one agent": PlantedFault(
        agent({}, {"instance_id": "i-2"}), "agent", "2 processes", "OMI_AGENT_ID"
    ),
    "an agent in trouble": PlantedFault(
        agent({"last_error": "out of memory"}), "agent", "out of memory", "omi-agent logs", "note"
    ),
    "an agent that stopped": PlantedFault(
        agent({"state": AgentState.STOPPED}), "agent", "not running", "omi-agent run", verdict="note"
    ),
    # the tailnet and the service
    "not logged in to the tailnet": PlantedFault(
        lambda m: m.tailscale({"BackendState": "NeedsLogin"}), "tailnet", "NeedsLogin", "tailscale up"
    ),
    "an expired key": PlantedFault(lambda m: m.tailscale(expiring(-2)), "tailnet", "expired on", "--force-reauth"),
    "a key that expires soon": PlantedFault(
        lambda m: m.tailscale(expiring(3)), "tailnet", "expires on", "--force-reauth", verdict="note"
    ),
    "a unit that starts nothing": PlantedFault(lambda m: m.unit("[Unit]\n"), "service", "damaged", "omi-agent install"),
    "a unit with a secret": PlantedFault(
        lambda m: m.unit(UNIT + "Environment=OMI_BROKER_PASSWORD=hush\n"), "service", "for anyone to read", "mode 600"
    ),
}
