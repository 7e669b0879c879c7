"""The heartbeat of an agent, and its will: what the broker sends when the agent's connection breaks."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import psutil

from schemas.agent import AgentHeartbeat, AgentState, HeldJob, HeldJobState, MemoryUse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from schemas.turns import EngineDescription

MAX_LISTED_JOBS = 100
MAX_ERROR_CHARS = 2_000
MAX_NOTE_CHARS = 200
_PACKAGES = ("omi-diarization", "torch", "pyannote.audio")


@dataclass(frozen=True)
class AgentIdentity:
    """Which process a heartbeat comes from."""

    agent_id: str
    instance_id: str
    started_at: datetime
    started_s: float
    """Monotonic."""

    def uptime_s(self) -> float:
        """How long it runs."""
        return time.monotonic() - self.started_s


@dataclass
class AgentCounters:
    """What this process did so far."""

    jobs_done: int = 0
    jobs_failed: int = 0
    speed_x_real_time: float = 0.0
    last_error: str | None = None

    def note_speed(self, audio_s: float, took_s: float) -> None:
        """Take one finished job into the speed, newest counting most."""
        if took_s > 0 and audio_s > 0:
            speed = audio_s / took_s
            self.speed_x_real_time = 0.7 * self.speed_x_real_time + 0.3 * speed if self.speed_x_real_time else speed


@dataclass(frozen=True)
class BeatContent:
    """What may change between two heartbeats; of each job held its lease and its state."""

    state: AgentState
    free_capacity: int
    jobs: tuple[tuple[str, HeldJobState], ...]
    notes: Mapping[str, str]

    @property
    def working(self) -> frozenset[str]:
        """The leases of jobs without a result."""
        return frozenset(lease_id for lease_id, state in self.jobs if state is not HeldJobState.OUTBOX)

    def is_urgent(self, sent: BeatContent | None) -> bool:
        """Whether the bridge acts on what is new since the heartbeat that sent `sent`: it must not wait.

        One more job beside others can wait: the bridge counts what it offered. The first job cannot: the death of
        this process counts against a job only if a heartbeat has listed the job.
        """
        return (
            sent is None
            or (self.state, self.notes) != (sent.state, sent.notes)
            or self.free_capacity > sent.free_capacity
            or not self.working >= sent.working
            or bool(self.working and not sent.working)
        )


def make_heartbeat(  # noqa: PLR0913 - a beat says all of this, and each is named
    identity: AgentIdentity,
    state: AgentState,
    sent_at: datetime,
    *,
    jobs: Sequence[HeldJob],
    free_capacity: int,
    engine: EngineDescription | None,
    counters: AgentCounters,
    memory: MemoryUse,
    versions: dict[str, str],
    notes: dict[str, str],
) -> AgentHeartbeat:
    """Return the beat. With more jobs than it can name, those being worked on come first, then the oldest."""
    listed = sorted(jobs, key=lambda job: job.state is HeldJobState.OUTBOX)[:MAX_LISTED_JOBS]
    return AgentHeartbeat(
        agent_id=identity.agent_id,
        instance_id=identity.instance_id,
        state=state,
        sent_at=sent_at,
        started_at=identity.started_at,
        uptime_s=identity.uptime_s(),
        engine=engine,
        jobs=tuple(listed),
        free_capacity=free_capacity,
        speed_x_real_time=min(counters.speed_x_real_time, 1e6),
        memory=memory,
        jobs_done=counters.jobs_done,
        jobs_failed=counters.jobs_failed,
        last_error=counters.last_error[:MAX_ERROR_CHARS] if counters.last_error else None,
        versions=versions,
        notes={name: text[:MAX_NOTE_CHARS] for name, text in notes.items() if text},
    )


def make_will(identity: AgentIdentity) -> AgentHeartbeat:
    """Return the will: `offline`, under the same instance id."""
    return AgentHeartbeat(
        agent_id=identity.agent_id,
        instance_id=identity.instance_id,
        state=AgentState.OFFLINE,
        sent_at=identity.started_at,
        started_at=identity.started_at,
    )


def measure_memory(worker_pid: int | None, device_bytes: int) -> MemoryUse:
    """Return the resident bytes of this process and of the worker, beside what the worker said of its device."""
    return MemoryUse(
        agent_rss_bytes=resident_bytes(None),
        worker_rss_bytes=resident_bytes(worker_pid) if worker_pid else 0,
        device_bytes=device_bytes if worker_pid else 0,
    )


def list_versions() -> dict[str, str]:
    """Return the versions an operator asks for first, without importing anything heavy."""
    versions = {"python": platform.python_version(), "platform": platform.platform(terse=True)[:100]}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def resident_bytes(pid: int | None) -> int:
    """Return the memory a process (None: this one) keeps in RAM; 0 where there is none of this id.

    0 too where this process can open no file any more, which Linux takes to tell: the beat must go out.
    """
    try:
        return int(_open_process(pid).memory_info().rss)
    except (psutil.Error, OSError):
        return 0


@lru_cache(maxsize=4)
def _open_process(pid: int | None) -> psutil.Process:
    """Return a handle on a process, kept: making one costs more than the beat it is made for."""
    return psutil.Process(pid)
