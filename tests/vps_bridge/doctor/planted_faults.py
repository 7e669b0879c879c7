"""The faults that are planted for `omi-bridge doctor`: one function each, and the table of what must be said of it."""

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
from schemas.agent import AgentState
from schemas.bridge import BridgeState
from schemas.turns import EngineDescription
from tests.planted_broker import PlantedBroker, PlantedFault, agent_beat, bridge_beat, fake_tailscale, make_other_ca
from tests.vps_bridge.waiting_job import add_waiting_job
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.erasure_log import LOG_NAME
from vps_bridge.ledger.refusals import RefusedChunk

PAGE_BYTES = 4096
SELF = {"TailscaleIPs": ["100.64.0.7"], "DNSName": "vps.tail1234.ts.net."}


@dataclass
class World:
    """A healthy bridge's files, settings and broker, for one test."""

    broker: PlantedBroker
    data_dir: Path
    config: Path
    patch: pytest.MonkeyPatch
    scratch: Path

    @property
    def root(self) -> Path:
        return self.data_dir / "bridge"

    def set(self, **values: object) -> None:
        for name, value in values.items():
            self.patch.setenv(f"OMI_{name.upper()}", str(value))

    def become(self, role: str) -> None:
        user = read_users(self.broker.home / "users.json")[role]
        self.set(broker_username=user.username, broker_password=user.password)

    def ledger(self) -> Ledger:
        return Ledger(self.root, exclusive=False)

    def append_to_erasures(self, data: bytes) -> None:
        with (self.root / LOG_NAME).open("ab") as log:
            log.write(data)

    def age_jobs(self, seconds: float) -> None:
        with sqlite3.connect(self.root / "ledger.sqlite3") as connection:
            connection.execute("UPDATE jobs SET created_at = ?", (time.time() - seconds,))
            connection.execute("UPDATE chunks SET accepted_at = ?", (time.time() - seconds,))

    def tailscale(self, status: dict[str, Any] | str) -> None:
        self.patch.setenv("PATH", f"{fake_tailscale(self.scratch, status)}:{os.environ['PATH']}")

    def unit(self, text: str) -> None:
        units = self.scratch / "units"
        units.mkdir()
        (units / "omi-bridge.service").write_text(text)
        self.patch.setattr(systemd_unit, "UNITS", units)


def damage(path: Path) -> None:
    """Overwrite the pages of tables, and the log that holds newer ones."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(5 * PAGE_BYTES)
        file.write(os.urandom(40 * PAGE_BYTES))


def make_newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def refuse_audio(world: World) -> None:
    ledger = world.ledger()
    now = time.time()
    fields = {"conversation_id": "call", "chunk_id": "c-1", "sha256": "0" * 64, "bytes": 9, "reason": "audio.empty"}
    ledger.refusals.note(RefusedChunk(**fields, message="no sound", times=1, first_at=now, last_at=now))  # type: ignore[arg-type] # as the record has them
    ledger.refusals.write(float("inf"))
    ledger.close()


def let_wait(world: World) -> None:
    ledger = world.ledger()
    add_waiting_job(ledger, "call", "c-1", audio_s=60.0, final=False)
    ledger.close()
    world.age_jobs(7_200)


def give_up(world: World) -> None:
    let_wait(world)
    ledger = world.ledger()
    ledger.jobs.give_up(ledger.jobs.all()[0].job_id, "engine.crashed", "three times")
    ledger.close()


def fill_webhook(world: World) -> None:
    world.set(webhook_url="http://127.0.0.1:9/hook", webhook_secret="0123456789abcdef" * 2)
    ledger = world.ledger()
    ledger.webhook.turn_on()
    ledger.close()
    give_up(world)
    ledger = world.ledger()
    waiting = ledger.webhook.next(())
    assert waiting is not None
    ledger.webhook.note_failed(waiting.number, "HTTP 500")
    ledger.close()


def deny(world: World) -> None:
    ledger = world.ledger()
    ledger.agents.set_allowed("first", allowed=False)
    ledger.close()


def forget_agents(world: World) -> None:
    ledger = world.ledger()
    ledger.agents.forget("first")
    ledger.close()
    del world.broker.beats["agent:first"]


def two_models(world: World) -> None:
    ledger = world.ledger()
    ledger.agents.set_allowed("second", allowed=True)
    ledger.close()
    for name in ("first", "second"):
        engine = EngineDescription(name="e", embedding_model=f"model-of-{name}")
        world.broker.beats[f"agent:{name}"] = [agent_beat(name, engine=engine)]


def bridge(*beats: dict[str, Any]) -> Any:
    return lambda world: world.broker.beats.update({"bridge": [bridge_beat(**fields) for fields in beats]})


def agent(**fields: Any) -> Any:
    return lambda world: world.broker.beats.update({"agent:first": [agent_beat("first", **fields)]})


def nobody_listens() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"mqtts://127.0.0.1:{probe.getsockname()[1]}"


def expiring(days: float) -> dict[str, Any]:
    key_expiry = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    return {"BackendState": "Running", "Self": SELF | {"KeyExpiry": key_expiry}}


def open_config(world: World) -> None:
    world.config.write_text('broker_password = "hush"\n')
    world.config.chmod(0o644)
    world.patch.delenv("OMI_BROKER_PASSWORD")
    world.become("bridge")


def token_file(world: World) -> None:
    file = world.scratch / "token"
    file.write_text("0123456789abcdef")
    file.chmod(0o644)
    world.set(http_port=8765, http_token_file=file)


UNIT = f"[Service]\nUser=root\nExecStart={sys.executable} run\n"
FAULTS: dict[str, PlantedFault] = {
    # the broker, and the way to it
    "wrong password": PlantedFault(lambda w: w.set(broker_password="no"), "broker", "OMI_BROKER_PASSWORD"),
    "nobody listens": PlantedFault(lambda w: w.set(broker_url=nobody_listens()), "broker", "OMI_BROKER_URL"),
    "wrong CA": PlantedFault(
        lambda w: w.set(broker_ca_file=make_other_ca(w.scratch)), "broker", "signed by no CA that OMI_BROKER_CA_FILE"
    ),
    "no CA": PlantedFault(lambda w: w.patch.delenv("OMI_BROKER_CA_FILE"), "broker", "Join with an invitation"),
    "a CA file that is none": PlantedFault(lambda w: w.set(broker_ca_file=w.config), "broker", "holds no certificate"),
    "TLS spoken to a port without": PlantedFault(
        lambda w: w.set(broker_url=w.broker.plain_url.replace("mqtt:", "mqtts:")), "broker", "begins with mqtt://"
    ),
    "no TLS spoken to a port with": PlantedFault(
        lambda w: w.set(broker_url=w.broker.tls_url.replace("mqtts:", "mqtt:")), "broker", "begins with mqtts://"
    ),
    "a name the certificate is not for": PlantedFault(
        lambda w: w.set(broker_url=w.broker.tls_url.replace("127.0.0.1", "localhost")), "broker", "init DIR --name"
    ),
    "a certificate that ends": PlantedFault(
        lambda w: w.set(broker_url=w.broker.ending_url), "certificate", "in 4 days", "omi-broker rotate DIR"
    ),
    "an agent's user": PlantedFault(lambda w: w.become("agent:second"), "rights", "/control", "omi-broker init DIR"),
    "another topic root": PlantedFault(
        lambda w: w.set(topic_root="other/v1"), "rights", "other/v1", "omi-broker init DIR"
    ),
    "parts larger than the broker takes": PlantedFault(
        lambda w: w.set(part_bytes=1_499_999, assumed_max_packet_bytes=1_000_000, mqtt_version="3.1.1"),
        "broker",
        "packets of up to 1,000,000",
        "max_packet_size",
    ),
    # this machine and these files
    "a config file that others can read": PlantedFault(open_config, "config file", "others can read it", "chmod 600"),
    "a data directory that others can write into": PlantedFault(
        lambda w: w.root.chmod(0o777), "data directory", "others may write", "chmod 700"
    ),
    "a full disk": PlantedFault(lambda w: w.set(ballast_bytes=10**18), "disk", "GB free", "Make room"),
    "a damaged ledger": PlantedFault(lambda w: damage(w.root / "ledger.sqlite3"), "ledger", "", "restore a backup"),
    "a damaged log of erasures": PlantedFault(
        lambda w: w.append_to_erasures(b"\0\0\0\0\n"), "erasures", "1 of its lines cannot be read", "Put your copy"
    ),
    "damaged conversations": PlantedFault(
        lambda w: damage(w.root / "conversations.sqlite3"), "conversations", "", "restore a backup"
    ),
    "a ledger of a newer version": PlantedFault(
        lambda w: make_newer(w.root / "ledger.sqlite3"), "ledger", "9999", "backup"
    ),
    "a token that others can read": PlantedFault(token_file, "http", "chmod 600", "restart the bridge"),
    "a door to the network without a token": PlantedFault(
        lambda w: w.set(http_port=8765, http_host="0.0.0.0"), "http", "a token is needed", "restart the bridge"
    ),
    # bridges and agents
    "a dead bridge": PlantedFault(bridge(), "bridge", "none is live", "systemctl start omi-bridge"),
    "a stopped bridge": PlantedFault(bridge({"state": BridgeState.STOPPED}), "bridge", "stopped", "Start it"),
    "a second bridge": PlantedFault(
        lambda w: w.broker.beats["bridge"].append(bridge_beat(instance_id="i-2")), "bridge", "two are live", "Stop one"
    ),
    "another bridge's files": PlantedFault(bridge({"ledger_id": "l-other"}), "bridge", "another ledger", "--data-dir"),
    "a bridge that takes no audio": PlantedFault(bridge({"accepting": False}), "bridge", "takes no audio", "queue"),
    "an agent nobody allowed": PlantedFault(
        deny, "agent first", "nobody has allowed it", "omi-bridge agents allow first"
    ),
    "no agent at all": PlantedFault(forget_agents, "agents", "none is allowed", "omi-bridge agents allow ID"),
    "an agent that is gone": PlantedFault(agent(state=AgentState.STOPPED), "agents", "none", "omi-agent doctor"),
    "a wrong clock": PlantedFault(agent(behind_s=90), "clocks", "first's is -", "timedatectl set-ntp"),
    "two processes of one agent": PlantedFault(
        lambda w: w.broker.beats["agent:first"].append(agent_beat("first", instance_id="i-2")),
        "twins",
        "more than one process beats as first",
        "add-agent",
    ),
    "two models": PlantedFault(two_models, "models", "model-of-first", "fetch-model", verdict="note"),
    "an agent in trouble": PlantedFault(
        agent(last_error="out of memory"),
        "agent first",
        "out of memory",
        "omi-agent doctor",
        verdict="note",
    ),
    "an agent of an older version": PlantedFault(
        agent(versions={"omi-diarization": "0.0.1"}),
        "versions",
        "first 0.0.1",
        "newest",
        verdict="note",
    ),
    # the work
    "a job that waits for hours": PlantedFault(
        let_wait, "queue", "no allowed agent is live (first)", "omi-bridge jobs"
    ),
    "a job that failed": PlantedFault(give_up, "failures", "1 jobs", "omi-bridge failed"),
    "audio that was refused": PlantedFault(refuse_audio, "failures", "pieces of audio refused", "omi-bridge failed"),
    "a webhook that nobody takes": PlantedFault(fill_webhook, "webhook", "HTTP 500", "docs/webhook.md"),
    # the tailnet and the service
    "not logged in to the tailnet": PlantedFault(
        lambda w: w.tailscale({"BackendState": "NeedsLogin"}), "tailnet", "NeedsLogin", "tailscale up"
    ),
    "an expired key": PlantedFault(lambda w: w.tailscale(expiring(-2)), "tailnet", "expired on", "--force-reauth"),
    "a key that expires soon": PlantedFault(
        lambda w: w.tailscale(expiring(3)), "tailnet", "expires on", "--force-reauth", verdict="note"
    ),
    "a tailscale that says nothing": PlantedFault(lambda w: w.tailscale("what?"), "tailnet", "no answer", "tailscaled"),
    "a unit that starts nothing": PlantedFault(
        lambda w: w.unit("[Unit]\n"), "service", "damaged", "omi-bridge install"
    ),
    "a unit whose program is gone": PlantedFault(
        lambda w: w.unit(UNIT.replace(sys.executable, "/opt/gone/omi-bridge")), "service", "/opt/gone", "install"
    ),
    "a unit of a user that is gone": PlantedFault(
        lambda w: w.unit(UNIT.replace("root", "no-such-user")), "service", "no such user", "--user"
    ),
    "a unit with a secret": PlantedFault(
        lambda w: w.unit(UNIT + "Environment=OMI_BROKER_PASSWORD=hush\n"), "service", "for anyone to read", "mode 600"
    ),
    "a unit of another directory": PlantedFault(
        lambda w: w.unit(UNIT + "Environment=OMI_DATA_DIR=/srv/omi\n"),
        "service",
        "/srv/omi",
        "OMI_DATA_DIR=/srv/omi",
        verdict="note",
    ),
}
