"""The plan of a chaos run, as a pure function of its seed: the conversations that are sent, and the faults.

Each conversation has a few voices (pitches) that speak alternately; each of its chunks is 8 s with its own pattern of
turns, so that the final state shows which chunks are in it. With `SETTINGS` of `programs.py` a chunk is one job, with
the chunk before it as context.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

CHUNK_S = 8.0
STEP_S = 0.1  # turns begin and end on this grid
STARTED_AT = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
PITCHES_HZ = tuple(range(300, 1500, 100))
POISON_HZ = 1700  # and above: these pitches kill the engine's process; each poisoned chunk has its own
POISON_STEP_HZ = 20
VOICE_STEPS = 32  # 3.2 s of each voice in each chunk: with less than 3 s it would not become a speaker
GAP_STEPS = 2
CHUNKS_PER_CONVERSATION = 20
HTTP_SHARE = 0.2
AGENTS = ("studio-a", "studio-b", "visitor")
LIAR, STRANGER = "liar", "stranger"  # no program: the test publishes in their name; the first one is allowed


class FaultKind(StrEnum):
    """The kinds of faults; the values are shown in the report."""

    KILL_AGENT = "kill -9 agent"
    KILL_BRIDGE = "kill -9 bridge"
    KILL_BROKER = "kill -9 broker"
    KILL_WORKER = "kill -9 worker"
    TERM_AGENT = "restart agent"
    TERM_BRIDGE = "restart bridge"
    TERM_BROKER = "restart broker"
    STOP_AGENT = "SIGSTOP agent"
    STOP_BRIDGE = "SIGSTOP bridge"
    STOP_WORKER = "SIGSTOP worker"
    HANG_WORKER = "worker hangs for good"
    CUT = "link cut"
    HALF_OPEN = "link half-open"
    HOLD = "link held"
    DEAF = "link loses what comes"
    MUTE = "link loses what goes"
    REFUSE = "link refused"
    DELAY = "link slow"
    DUPLICATES = "duplicates"
    OLD_MESSAGES = "old messages"
    REORDERED = "reordered messages"
    BAD_PARTS = "corrupt parts"
    STRANGER = "an agent that is not allowed floods"
    LIAR = "an allowed agent lies"
    CLOCK_JUMP = "clock jump"
    VISITOR = "an agent comes or goes"
    DELETION = "deletion in the middle"


@dataclass(frozen=True)
class PlannedTurn:
    """One turn, in seconds from the start of its chunk."""

    start_s: float
    end_s: float
    pitch_hz: int


@dataclass(frozen=True)
class ChunkPlan:
    """One payload."""

    chunk_id: str
    sequence: int
    turns: tuple[PlannedTurn, ...]
    is_wide: bool = False
    """16 bits a sample instead of 8."""

    @property
    def is_for_door(self) -> bool:
        """Whether it is sent over HTTP, as one in five is."""
        return random.Random(f"door {self.chunk_id}").random() < HTTP_SHARE


@dataclass(frozen=True)
class ConversationPlan:
    """One conversation. After `delete_after` accepted chunks it is deleted, and then one more chunk is sent."""

    conversation_id: str
    chunks: tuple[ChunkPlan, ...]
    delete_after: int | None = None
    is_poison: bool = False


@dataclass(frozen=True)
class Fault:
    """One fault.

    It happens at `at`, a share of the run's progress (payloads accepted and jobs ended), to `target`, a program or a
    link. `hold_s` is how long it lasts, or how long a killed program stays down; `amount` depends on the kind.
    """

    number: int
    at: float
    kind: FaultKind
    target: str = ""
    hold_s: float = 0.0
    amount: float = 0.0


@dataclass(frozen=True)
class Plan:
    """All that a run sends, and its faults."""

    seed: int
    conversations: tuple[ConversationPlan, ...]
    faults: tuple[Fault, ...]

    @property
    def jobs(self) -> int:
        """The number of payloads; each becomes one job."""
        return sum(len(conversation.chunks) for conversation in self.conversations)

    @property
    def poisoned(self) -> int:
        """The number of jobs that must fail."""
        return sum(len(conversation.chunks) for conversation in self.conversations if conversation.is_poison)

    def without_faults(self) -> Plan:
        """Return the plan with the same conversations and no faults."""
        return replace(self, faults=())


# How often each kind is drawn, relative to the others; those that take long are rare.
_WEIGHTS: dict[FaultKind, int] = {
    FaultKind.KILL_AGENT: 12,
    FaultKind.KILL_BRIDGE: 12,
    FaultKind.KILL_BROKER: 12,
    FaultKind.KILL_WORKER: 6,
    FaultKind.TERM_AGENT: 6,
    FaultKind.TERM_BRIDGE: 6,
    FaultKind.TERM_BROKER: 4,
    FaultKind.STOP_AGENT: 6,
    FaultKind.STOP_BRIDGE: 6,
    FaultKind.STOP_WORKER: 5,
    FaultKind.HANG_WORKER: 1,
    FaultKind.CUT: 10,
    FaultKind.HALF_OPEN: 8,
    FaultKind.HOLD: 8,
    FaultKind.DEAF: 8,
    FaultKind.MUTE: 8,
    FaultKind.REFUSE: 5,
    FaultKind.DELAY: 6,
    FaultKind.DUPLICATES: 14,
    FaultKind.OLD_MESSAGES: 10,
    FaultKind.REORDERED: 10,
    FaultKind.BAD_PARTS: 10,
    FaultKind.STRANGER: 6,
    FaultKind.LIAR: 8,
    FaultKind.CLOCK_JUMP: 8,
    FaultKind.VISITOR: 5,
}
_LINKS = ("bridge", "studio-a", "studio-b", "backend")
_LINK_KINDS = (
    FaultKind.CUT,
    FaultKind.HALF_OPEN,
    FaultKind.HOLD,
    FaultKind.DEAF,
    FaultKind.MUTE,
    FaultKind.REFUSE,
    FaultKind.DELAY,
)
_AGENT_KINDS = (
    FaultKind.KILL_AGENT,
    FaultKind.TERM_AGENT,
    FaultKind.STOP_AGENT,
    FaultKind.KILL_WORKER,
    FaultKind.STOP_WORKER,
    FaultKind.HANG_WORKER,
)
_MESSAGE_KINDS = (
    FaultKind.DUPLICATES,
    FaultKind.OLD_MESSAGES,
    FaultKind.REORDERED,
    FaultKind.BAD_PARTS,
    FaultKind.STRANGER,
    FaultKind.LIAR,
)
_FIRST, _LAST = 0.02, 0.93  # shares of the progress: work is left after the last fault
_LONG_STOP_S, _SHORT_STOP_S = 10.0, 1.5  # above and below the time after which an agent is stale
_CLOCK_JUMPS_S = (-172_800.0, -3_600.0, -90.0, 90.0, 3_600.0, 172_800.0)


def make_plan(
    seed: int, *, jobs: int, faults: int, conversations: int | None = None, kinds: Sequence[FaultKind] | None = None
) -> Plan:
    """Return the plan of a run.

    Args:
        seed: the same seed and sizes give the same plan.
        jobs: payloads.
        faults: their number, without deletions.
        conversations: their number; None: one for every `CHUNKS_PER_CONVERSATION` payloads.
        kinds: faults of these kinds only.
    """
    rng = random.Random(f"{seed} {jobs} {faults}")
    talks = _plan_conversations(rng, seed, jobs, conversations or max(2, jobs // CHUNKS_PER_CONVERSATION))
    drawn = _draw_kinds(rng, faults, tuple(kinds or _WEIGHTS))
    places = sorted(rng.uniform(_FIRST, _LAST) for _ in drawn)
    planned = tuple(_detail(rng, number, at, kind) for number, (at, kind) in enumerate(zip(places, drawn, strict=True)))
    return Plan(seed, talks, planned)


def _plan_conversations(rng: random.Random, seed: int, jobs: int, count: int) -> tuple[ConversationPlan, ...]:
    poisons = 0 if count < 3 else max(1, count // 25)
    talks = count - poisons
    share, rest = divmod(jobs - poisons, talks)
    deleted = set(rng.sample(range(talks), 0 if talks < 3 else max(1, talks // 12)))
    plans = []
    for place in range(talks):
        name = f"c{seed}-{place:03d}"
        chunks = share + (place < rest)
        voices = rng.sample(PITCHES_HZ, rng.choice((2, 3, 4)))
        delete_after = rng.randint(1, max(1, chunks - 2)) if place in deleted else None
        plans.append(
            ConversationPlan(name, tuple(_plan_chunk(rng, name, i, voices) for i in range(chunks)), delete_after)
        )
    for place in range(poisons):
        name = f"p{seed}-{place:03d}"
        pitch_hz = POISON_HZ + POISON_STEP_HZ * place
        chunk = ChunkPlan(f"{name}-0", 0, (PlannedTurn(1.0, 7.0, pitch_hz),))
        plans.insert(rng.randrange(len(plans) + 1), ConversationPlan(name, (chunk,), is_poison=True))
    return tuple(plans)


def _plan_chunk(rng: random.Random, name: str, sequence: int, voices: Sequence[int]) -> ChunkPlan:
    """Two voices, each in two turns, with silence before and after every turn."""
    first, second = rng.sample(voices, 2)
    cuts = [rng.randint(8, VOICE_STEPS - 8) for _ in range(2)]
    lengths = (cuts[0], cuts[1], VOICE_STEPS - cuts[0], VOICE_STEPS - cuts[1])
    spare = round(CHUNK_S / STEP_S) - 2 * VOICE_STEPS - 5 * GAP_STEPS
    gaps = [GAP_STEPS] * 4
    for _ in range(rng.randint(0, spare)):
        gaps[rng.randrange(4)] += 1
    turns, place = [], 0
    for gap, length, pitch_hz in zip(gaps, lengths, (first, second, first, second), strict=True):
        place += gap
        turns.append(PlannedTurn(round(place * STEP_S, 1), round((place + length) * STEP_S, 1), pitch_hz))
        place += length
    return ChunkPlan(f"{name}-{sequence}", sequence, tuple(turns), is_wide=rng.random() < 0.25)


def _draw_kinds(rng: random.Random, count: int, kinds: Sequence[FaultKind]) -> list[FaultKind]:
    """Draw every kind once, as far as `count` allows, and then by weight."""
    once = list(kinds)
    rng.shuffle(once)
    drawn = once[:count]
    drawn += rng.choices(kinds, [_WEIGHTS.get(kind, 1) for kind in kinds], k=count - len(drawn))
    rng.shuffle(drawn)
    return drawn


def _detail(rng: random.Random, number: int, at: float, kind: FaultKind) -> Fault:
    target, hold_s, amount = "", 0.0, 0.0
    if kind in _AGENT_KINDS:
        target = rng.choice(AGENTS[:2])
        hold_s = rng.uniform(0.0, 1.0)
    elif kind in _LINK_KINDS:
        target = rng.choice(_LINKS)
        hold_s = rng.uniform(0.3, 2.0)
    elif kind is FaultKind.CLOCK_JUMP:
        target = rng.choice(("bridge", *AGENTS[:2]))
        amount = rng.choice(_CLOCK_JUMPS_S)
    elif kind in _MESSAGE_KINDS:
        amount = rng.randint(3, 25)
    else:
        hold_s = rng.uniform(0.0, 1.0)
    if kind in (FaultKind.KILL_BROKER, FaultKind.TERM_BROKER):
        amount = rng.randint(0, 1)  # whether the broker keeps its messages over the restart
    elif kind in (FaultKind.STOP_AGENT, FaultKind.STOP_WORKER):
        hold_s = rng.choice((_SHORT_STOP_S, _SHORT_STOP_S, _LONG_STOP_S))
    elif kind is FaultKind.STOP_BRIDGE:
        hold_s = _SHORT_STOP_S
    elif kind is FaultKind.DELAY:
        amount = rng.uniform(0.05, 0.3)
    return Fault(number, at, kind, target, round(hold_s, 2), round(amount, 2))
