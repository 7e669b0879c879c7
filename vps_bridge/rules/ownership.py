"""Which of several bridges does what: a pure function of who is live, so that all of them agree without asking."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

Owns = Callable[[str], bool]
"""Whether this bridge is the owner of a conversation or an agent, by its id."""

LIFE_BEATS = 2.2  # a bridge is taken for dead after two missed beats; the rest is for a beat that is a little late


def own_all(_name: str) -> bool:
    """Own everything: a bridge that is alone."""
    return True


def choose_owner(name: str, bridge_ids: Iterable[str]) -> str | None:
    """Return which of these bridges owns a name; None where there are none.

    By rendezvous hashing: whoever has the highest hash with the name. When a bridge comes or goes only its own names
    change hands, and they are spread evenly over the others.
    """
    return max(bridge_ids, key=lambda bridge_id: (_weight(bridge_id, name), bridge_id), default=None)


def _weight(bridge_id: str, name: str) -> bytes:
    return hashlib.blake2b(f"{bridge_id}\0{name}".encode(), digest_size=8).digest()


@dataclass(frozen=True)
class BridgePlaces:
    """Where a bridge keeps and hears what all bridges of a ledger have to have in common.

    `shared`: for each such setting what identifies the place; None where it is on this machine alone. `alone`: settings
    of which only one bridge may make use, where this one does.
    """

    shared: Mapping[str, str | None] = field(default_factory=dict)
    alone: frozenset[str] = frozenset()


@dataclass(frozen=True)
class KnownBridge:
    """A bridge as the ledger has it. `left_s` is how long it is taken for live yet, by the server's clock."""

    bridge_id: str
    instance_id: str
    is_ready: bool
    """Whether it hears what is published: nobody else is an owner."""
    left_s: float
    places: BridgePlaces = BridgePlaces()

    @property
    def is_live(self) -> bool:
        """Whether its beats came."""
        return self.left_s > 0


def choose_owners(bridges: Iterable[KnownBridge]) -> tuple[str, ...]:
    """Return the ids of the bridges that own something: all that are live and hear what is published."""
    return tuple(sorted(bridge.bridge_id for bridge in bridges if bridge.is_live and bridge.is_ready))


def find_obstacle(own: BridgePlaces, others: Iterable[KnownBridge]) -> str | None:
    """Return why a bridge may not run beside others that are live, and what to do; None where it may."""
    for other in sorted(others, key=lambda each: each.bridge_id):
        if not other.is_live:
            continue
        for setting, place in own.shared.items():
            theirs, name = other.places.shared.get(setting), f"OMI_{setting.upper()}"
            if place is None:
                return (
                    f"bridge {other.bridge_id} runs on this ledger, and what this one would keep on its own disk it "
                    f"could not read: set {name} as that one has it (docs/several-bridges.md)"
                )
            if theirs is None:
                return (
                    f"bridge {other.bridge_id} runs on this ledger and keeps on its own disk what this one could not "
                    f"read: stop it and give it {name} (docs/several-bridges.md)"
                )
            if theirs != place:
                return f"bridge {other.bridge_id} runs on this ledger with another {name}: give both the same"
        both = sorted(own.alone & other.places.alone)
        if both:
            return (
                f"bridge {other.bridge_id} runs on this ledger and has OMI_{both[0].upper()}, which only one may: "
                "leave it out here, or there"
            )
    return None
