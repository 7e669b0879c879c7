"""What the moments of a ping say: how long each leg took, which is slow, and where it stopped. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Moment(StrEnum):
    """What was seen at the broker, in this order."""

    SENT = "sent"
    AT_BROKER = "at_broker"
    ACCEPTED = "accepted"
    LEASED = "leased"
    ASKED = "asked"
    AUDIO_OUT = "audio_out"
    RESULT = "result"
    STORED = "stored"
    BACK = "back"


class Link(StrEnum):
    """What a leg's time is spent on."""

    HERE = "between here and the broker"
    BRIDGE = "between broker and bridge, or in the bridge"
    AGENT = "between broker and agent, or in the agent"
    WORKER = "in the agent's worker"


SLOW_LINK_MS = 1_000.0  # a relayed connection of a tailnet takes 300 ms there and back
SLOW_WORKER_MS = 10_000.0  # a second of speech takes the slowest engine about 2 s, more while it is loaded
MENDS = {
    Link.HERE: "Look at the link from here: tailscale ping BROKER, and OMI_BROKER_URL; omi-bridge doctor",
    Link.BRIDGE: "Look at the bridge's machine: omi-bridge doctor, journalctl -u omi-bridge, iostat",
    Link.AGENT: "Look at the agent's machine and its link: tailscale ping AGENT; there: omi-agent doctor",
    Link.WORKER: "On the agent's machine: omi-agent doctor --deep; is it busy, hot, or on another device than meant?",
}


@dataclass(frozen=True)
class Leg:
    """A stretch of the way between two moments."""

    name: str
    begin: Moment
    end: Moment
    link: Link


LEGS = (
    Leg("to broker", Moment.SENT, Moment.AT_BROKER, Link.HERE),
    Leg("accepted by bridge", Moment.AT_BROKER, Moment.ACCEPTED, Link.BRIDGE),
    Leg("leased to an agent", Moment.ACCEPTED, Moment.LEASED, Link.BRIDGE),
    Leg("asked for by agent", Moment.LEASED, Moment.ASKED, Link.AGENT),
    Leg("audio sent", Moment.ASKED, Moment.AUDIO_OUT, Link.BRIDGE),
    Leg("received by agent, result sent", Moment.AUDIO_OUT, Moment.RESULT, Link.AGENT),
    Leg("result stored", Moment.RESULT, Moment.STORED, Link.BRIDGE),
    Leg("labels back", Moment.STORED, Moment.BACK, Link.BRIDGE),
)
WORKER_LEG = "worked on"


@dataclass(frozen=True)
class LegTime:
    """How long a leg took."""

    leg: str
    link: Link
    ms: float

    @property
    def slow(self) -> bool:
        """Whether it took longer than such a leg should."""
        return self.ms > (SLOW_WORKER_MS if self.link is Link.WORKER else SLOW_LINK_MS)


@dataclass
class RoundTrip:
    """One ping. `moments` are monotonic seconds; `worker_ms` is what the agent says that its worker took."""

    agent_id: str | None = None
    engine: str = ""
    moments: dict[Moment, float] = field(default_factory=dict)
    worker_ms: float = 0.0
    problem: str | None = None
    remedy: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it came back whole."""
        return self.problem is None and Moment.BACK in self.moments

    @property
    def total_ms(self) -> float | None:
        """From sending to the labels; None where it did not come back."""
        if Moment.BACK not in self.moments or Moment.SENT not in self.moments:
            return None
        return 1000 * (self.moments[Moment.BACK] - self.moments[Moment.SENT])

    @property
    def stopped_at(self) -> str | None:
        """The leg it did not finish; None where it came back."""
        if self.ok:
            return None
        return next((leg.name for leg in LEGS if leg.end not in self.moments), LEGS[-1].name)

    def legs(self) -> list[LegTime]:
        """Return the time of each leg it finished; what the worker took is a leg of its own."""
        times = []
        for leg in LEGS:
            if leg.end not in self.moments:
                break
            ms = _between_ms(self.moments, leg)
            if leg.end is Moment.RESULT:
                worker_ms = min(self.worker_ms, ms)
                times += [LegTime(WORKER_LEG, Link.WORKER, worker_ms), LegTime(leg.name, leg.link, ms - worker_ms)]
            else:
                times.append(LegTime(leg.name, leg.link, ms))
        return times

    def slow_links(self) -> list[Link]:
        """Return where slow legs spend their time, the worst first."""
        sums: dict[Link, float] = {}
        for found in self.legs():
            if found.slow:
                sums[found.link] = sums.get(found.link, 0.0) + found.ms
        return sorted(sums, key=lambda link: -sums[link])


def describe(trip: RoundTrip) -> dict[str, Any]:
    """Return a ping for machines."""
    return {
        "ok": trip.ok,
        "agent_id": trip.agent_id,
        "engine": trip.engine or None,
        "total_ms": None if trip.total_ms is None else round(trip.total_ms, 1),
        "legs": [{**asdict(leg), "ms": round(leg.ms, 1), "slow": leg.slow} for leg in trip.legs()],
        "slow": [str(link) for link in trip.slow_links()],
        "stopped_at": trip.stopped_at,
        "problem": trip.problem,
        "remedy": trip.remedy,
    }


def _between_ms(moments: Mapping[Moment, float], leg: Leg) -> float:
    """Return a leg's time. Messages of two connections may be seen in either order: none is below 0."""
    begin_s = moments.get(leg.begin, moments[leg.end])
    return max(0.0, 1000 * (moments[leg.end] - begin_s))
