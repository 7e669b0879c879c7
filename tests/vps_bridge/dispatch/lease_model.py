"""What the lease machine runs against: a ledger with waiting jobs, a wire, and agents as the contract has them."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from schemas.failure import FailureCode
from schemas.record import Message
from schemas.topics import Topics
from schemas.turns import EngineDescription
from tests.vps_bridge.waiting_job import add_waiting_job
from vps_bridge.ledger import Ledger
from vps_bridge.rules.lease import LeaseEnd
from vps_bridge.settings import BridgeSettings

TOPICS = Topics()
ENGINE = EngineDescription(name="model", embedding_model="voices", embedding_revision="1")
AGENTS = ("a", "b")
AUDIO_S, PLACES = 30.0, 2
STALE_S, GRACE_S, LIMIT_S = 30.0, 20.0, AUDIO_S + 60.0  # at a speed of 1 and a limit factor of 1
MAX_ATTEMPTS, MAX_DEATHS = 3, 5
UNRETURNABLE = {LeaseEnd.OVER_LIMIT, LeaseEnd.AGENT_DENIED, LeaseEnd.ATTEMPT_FAILED}
CODES = (
    FailureCode.ENGINE_CRASHED,
    FailureCode.ENGINE_TIMEOUT,
    FailureCode.AUDIO_UNDECODABLE,
    FailureCode.PAYLOAD_INCOMPLETE,
    FailureCode.DISK_FULL,
)


def bridge_settings(home: Path) -> BridgeSettings:
    return BridgeSettings(
        data_dir=home,
        stale_s=STALE_S,
        grace_s=GRACE_S,
        lease_limit_factor=1.0,
        lease_limit_floor_s=LIMIT_S - AUDIO_S,
        max_attempts=MAX_ATTEMPTS,
        retry_min_s=1e-6,
        retry_max_s=1e-6,
    )


@functools.cache
def three_jobs() -> Path:
    """A ledger in which three jobs of two conversations wait; made once, copied for every run."""
    home = Path(tempfile.mkdtemp(prefix="omi-leases-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    ledger = Ledger(home / "bridge", exclusive=True)
    for number in range(3):
        add_waiting_job(ledger, f"c{number % 2}", f"k{number}", audio_s=AUDIO_S, final=False)
    for name in AGENTS:
        ledger.agents.set_allowed(name, allowed=True)
    ledger.close()
    return home / "bridge"


class SimulatedWire:
    """What the bridge publishes, by topic; the agents read it when they do."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Message]] = []

    def send(self, topic: str, message: Message, *, retain: bool = False) -> bool:
        self.said.append((topic, message))
        return True


@dataclass
class ModelAgent:
    """An agent as the contract has it: what it holds, and up to where it has read."""

    agent_id: str
    instance: int = 0
    connected_as: int = 0
    """The instance whose will the broker has: the one that beat last."""
    read: int = 0
    held: dict[str, str] = field(default_factory=dict)
    """job_id -> lease_id of what it works on."""
    worked_s: dict[str, float] = field(default_factory=dict)
    """lease_id -> for how long its beats in a row listed the job as running."""
    running: set[str] = field(default_factory=set)
    """The leases that its latest beat listed as running: it works on one job at a time, the oldest."""
    outbox: dict[str, str] = field(default_factory=dict)
    """The same of results nobody settled."""

    def instance_id(self, instance: int) -> str:
        return f"{self.agent_id}{instance}"
