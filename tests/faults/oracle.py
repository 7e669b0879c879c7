"""Checks of what must be true after a chaos run, whatever happened in it. They read files and ask no program.

The result is compared with the plan, and with the result of a run of the same plan without faults: both must group the
segments into the same speakers, with the same coverage and turns. The numbers of the speakers must be equal where the
speakers were published in the same order, as a speaker keeps the number it was first published with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.agent import AgentHeartbeat
from schemas.bridge import BridgeHeartbeat
from schemas.codec import decode
from schemas.conversation import ConversationUpdated
from schemas.turns import SpeakerTurns
from tests.faults.backend import ChaosBackend, segment_id
from tests.faults.injector import InjectedFaults
from tests.faults.plan import AGENTS, CHUNK_S, ConversationPlan, Plan
from tests.faults.programs import BRIDGE, MAX_ATTEMPTS, ChaosSystem
from tests.faults.snapshot import Snapshot, files_in
from tests.faults.tap import LiveHeartbeat
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.conversations.store import ConversationStore, Write, speaker_name
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.records import JobRecord

EDGE_S = 0.06  # half a step of the engine's grid
COVERAGE = 0.02


@dataclass(frozen=True)
class ConversationEnd:
    """The final state of a conversation."""

    labels: Mapping[str, str | None]
    """segment id -> speaker"""
    coverage: Mapping[str, float | None]
    turns: tuple[tuple[float, float, int], ...]
    """(start_s, end_s, speaker number)"""
    published: tuple[frozenset[int], ...]
    """The speakers (by pitch) that each write to the store labelled for the first time, in the order of the writes."""


Ends = Mapping[str, ConversationEnd]


@contextmanager
def open_books(system: ChaosSystem) -> Iterator[tuple[Ledger, ConversationStore]]:
    """Ledger and store of a system, for reading."""
    ledger = Ledger(system.bridge_root, exclusive=False)
    store = SqliteConversations(system.bridge_root / STORE_FILE)
    try:
        yield ledger, store
    finally:
        store.close()
        ledger.close()


def read_ends(plan: Plan, ledger: Ledger, store: ConversationStore) -> Ends:
    """Return the final state of every conversation that was not deleted."""
    ends: dict[str, ConversationEnd] = {}
    for conversation in plan.conversations:
        name = conversation.conversation_id
        record, stored = ledger.conversations.get(name), store.read(name)
        if record is None or record.updated_payload is None or stored is None:
            continue
        update = decode(ConversationUpdated, record.updated_payload)
        ends[name] = ConversationEnd(
            labels={segment.id: segment.speaker for segment in stored.segments},
            coverage={label.id: label.coverage for label in update.segments},
            turns=tuple((turn.start_s, turn.end_s, turn.speaker_id) for turn in update.turns or ()),
            published=_published(conversation, store.history(name)),
        )
    return ends


def judge_against_calm(plan: Plan, calm: Ends, chaos: Ends) -> list[str]:
    """Return every difference between two runs of a plan."""
    found = [f"{name}: there without faults, gone with them" for name in calm.keys() - chaos.keys()]
    found += [f"{name}: gone without faults, there with them" for name in chaos.keys() - calm.keys()]
    for conversation in plan.conversations:
        name = conversation.conversation_id
        if name in calm and name in chaos:
            found += [f"{name}: {what}" for what in _differences(calm[name], chaos[name])]
    return found


def judge_run(
    plan: Plan,
    system: ChaosSystem,
    *,
    backend: ChaosBackend,
    beats: Mapping[str, LiveHeartbeat],
    injected: InjectedFaults,
    last: Snapshot | None,
    ends: Ends,
) -> list[str]:
    """Return everything that is wrong with the result of a run, after its programs have stopped."""
    found = [*backend.problems, *injected.problems, *system.unwanted_ends()]
    found += [f"still alive: {process}" for process in system.leftovers()]
    if last is None or not last.is_quiet:
        found.append(f"not everything came to its end: {last}")
    found += _judge_files(system, plan)
    found += _judge_beats(plan, beats)
    with open_books(system) as (ledger, store):
        found += _judge_attempts(plan, ledger.jobs.all(), system, injected)
        found += judge_conversations(plan, ledger, store, backend=backend, ends=ends)
    return found


def judge_conversations(
    plan: Plan, ledger: Ledger, store: ConversationStore, *, backend: ChaosBackend, ends: Ends
) -> list[str]:
    """Return everything that is wrong with the conversations of a plan."""
    found = []
    for conversation in plan.conversations:
        name = conversation.conversation_id
        if conversation.delete_after is not None:
            wrong = _judge_deleted(name, ledger, store)
        else:
            wrong = _judge_ledger(conversation, ledger, backend)
            wrong += _judge_history(store.history(name))
            wrong += _judge_end(conversation, ends.get(name))
        found += [f"{name}: {what}" for what in wrong]
    return found


# ------------------------------------------------------------------------------------------ one conversation


def _judge_ledger(conversation: ConversationPlan, ledger: Ledger, backend: ChaosBackend) -> list[str]:
    """Check that each accepted payload is in one job with the right state, and that the backend has the last update."""
    name, found = conversation.conversation_id, []
    chunks = {chunk.chunk_id: chunk for chunk in ledger.chunks.of_conversation(name)}
    for planned in conversation.chunks:
        chunk = chunks.pop(planned.chunk_id, None)
        if chunk is None:
            found.append(f"chunk {planned.chunk_id} was accepted and is lost")
        elif chunk.sha256 != backend.accepted.get(planned.chunk_id):
            found.append(f"chunk {planned.chunk_id} is not the audio that was accepted")
    found += [f"chunk {chunk_id} is nobody's" for chunk_id in chunks]
    fresh: Counter[str] = Counter()
    for job in ledger.jobs.all(conversation_id=name):
        fresh.update(item.chunk.chunk_id for item in ledger.jobs.chunks(job.job_id) if item.fresh)
        wanted = JobState.FAILED if conversation.is_poison else JobState.DONE
        if job.state is not wanted:
            found.append(
                f"job {job.job_id} is {job.state} ({job.failure_code}, {job.attempts} attempts, {job.deaths} deaths), "
                f"not {wanted}"
            )
    found += [
        f"chunk {c.chunk_id} is fresh in {fresh[c.chunk_id]} jobs"
        for c in conversation.chunks
        if fresh[c.chunk_id] != 1
    ]
    diarized = Counter(
        span.chunk_id for result in ledger.jobs.results(name) for span in decode(SpeakerTurns, result.payload).chunks
    )
    if not conversation.is_poison:
        found += [
            f"no result has chunk {chunk.chunk_id}" for chunk in conversation.chunks if not diarized[chunk.chunk_id]
        ]
    record, update = ledger.conversations.get(name), backend.updates.get(name)
    if record is None or record.final_at is None:
        found.append("it is not final")
    elif update is None or (update.updated_version, update.state) != (record.updated_version, "final"):
        found.append(f"the backend has not the latest update, {record.updated_version}")
    return found


def _judge_history(history: Iterable[Write]) -> list[str]:
    keys = Counter(write.write_key for write in history if write.kind == "apply")
    return [f"write key {key[:12]} stands {count} times in the history" for key, count in keys.items() if count > 1]


def _judge_end(conversation: ConversationPlan, end: ConversationEnd | None) -> list[str]:
    """Check that each planned turn is in the final turns once, with its speaker's number, as its segment is."""
    if end is None:
        return ["it was never updated"]
    if conversation.is_poison:
        return [f"a poisoned conversation has turns: {end.turns}"] if end.turns else []
    left = Counter(end.turns)
    number_of: dict[int, int] = {}
    found = []
    for chunk in conversation.chunks:
        for place, turn in enumerate(chunk.turns):
            start_s, end_s = chunk.sequence * CHUNK_S + turn.start_s, chunk.sequence * CHUNK_S + turn.end_s
            match = next((t for t in left if abs(t[0] - start_s) < EDGE_S and abs(t[1] - end_s) < EDGE_S), None)
            if match is None:
                found.append(f"the turn at {start_s:.1f} s of {chunk.chunk_id} is missing")
                continue
            left[match] -= 1
            left += Counter()
            number = number_of.setdefault(turn.pitch_hz, match[2])
            label = end.labels.get(segment_id(chunk, place))
            if number != match[2] or label != speaker_name(number):
                found.append(
                    f"the turn at {start_s:.1f} s is number {match[2]}, its segment {label}, its voice {number}"
                )
    found += [f"a turn at {turn[0]:.1f} s that nobody spoke, or a second time" for turn in left]
    if len(set(number_of.values())) != len(number_of):
        found.append(f"two voices have one number: {number_of}")
    return found


def _judge_deleted(name: str, ledger: Ledger, store: ConversationStore) -> list[str]:
    found = []
    if not ledger.conversations.is_deleted(name):
        found.append("it was deleted and has no tombstone")
    if ledger.conversations.get(name) or ledger.chunks.of_conversation(name) or store.read(name):
        found.append("it was deleted and something of it is there")
    if ledger.jobs.all(conversation_id=name):
        found.append("it was deleted and has jobs")
    return found


def _differences(calm: ConversationEnd, chaos: ConversationEnd) -> Iterator[str]:
    if _partition(calm.labels) != _partition(chaos.labels):
        yield f"other voices: {dict(calm.labels)} without faults, {dict(chaos.labels)} with them"
    for segment, coverage in calm.coverage.items():
        other = chaos.coverage.get(segment)
        if (coverage is None) != (other is None) or abs((coverage or 0.0) - (other or 0.0)) > COVERAGE:
            yield f"segment {segment} has coverage {other}, without faults {coverage}"
    if len(calm.turns) != len(chaos.turns):
        yield f"{len(chaos.turns)} turns, without faults {len(calm.turns)}"
    for ours, theirs in zip(chaos.turns, calm.turns, strict=False):
        if abs(ours[0] - theirs[0]) > EDGE_S or abs(ours[1] - theirs[1]) > EDGE_S:
            yield f"a turn at {ours[0]:.1f}-{ours[1]:.1f} s, without faults at {theirs[0]:.1f}-{theirs[1]:.1f} s"
    if calm.published == chaos.published and calm.labels != chaos.labels:
        yield "other numbers although the voices were published in the same order"


def _partition(labels: Mapping[str, str | None]) -> set[frozenset[str]]:
    """Return the segments grouped by speaker, without the names."""
    voices: dict[str | None, set[str]] = {}
    for segment, label in labels.items():
        voices.setdefault(label, set()).add(segment)
    return {frozenset(segments) for segments in voices.values()}


def _published(conversation: ConversationPlan, history: Iterable[Write]) -> tuple[frozenset[int], ...]:
    voice_of = {
        segment_id(chunk, place): turn.pitch_hz
        for chunk in conversation.chunks
        for place, turn in enumerate(chunk.turns)
    }
    seen: set[int] = set()
    published = []
    for write in history:
        labelled = {change.segment_id for change in write.changes if change.after is not None}
        new = frozenset(voice_of[segment] for segment in labelled if segment in voice_of) - seen
        if new:
            published.append(new)
            seen |= new
    return tuple(published)


# ------------------------------------------------------------------------------------------- all together


def _judge_attempts(plan: Plan, jobs: list[JobRecord], system: ChaosSystem, injected: InjectedFaults) -> list[str]:
    """Check that no more attempts are counted than workers died, of poisoned audio or by a fault, or hung for good."""
    lines = system.run_log.read_text().splitlines() if system.run_log.exists() else []
    poisonings = sum(line.startswith("death") for line in lines)
    poisoned = {c.conversation_id for c in plan.conversations if c.is_poison}
    found = []
    counted = sum(job.attempts for job in jobs if job.conversation_id not in poisoned)
    lost = injected.killed_workers + injected.hung_workers
    if counted > lost:
        found.append(f"{counted} attempts are counted, {lost} workers were killed or hung")
    by_poison = sum(job.attempts for job in jobs if job.conversation_id in poisoned)
    if by_poison > poisonings + lost:
        found.append(f"{by_poison} attempts at poisoned jobs are counted, of {poisonings} that were made")
    found += [
        f"job {job.job_id} is poisoned and was given up after {job.attempts} attempts, not {MAX_ATTEMPTS}"
        for job in jobs
        if job.conversation_id in poisoned and job.attempts != MAX_ATTEMPTS
    ]
    return found


def _judge_files(system: ChaosSystem, plan: Plan) -> list[str]:
    """Check that no audio is left anywhere but that of failed jobs, which an operator may retry."""
    ledger = Ledger(system.bridge_root, exclusive=False)
    failed = ledger.jobs.all(states=(JobState.FAILED,))
    kept = {item.chunk.spool_name for job in failed for item in ledger.jobs.chunks(job.job_id)}
    ledger.close()
    found = [f"spool file {name} is left" for name in files_in(system.bridge_root / "spool") if name not in kept]
    found += [f"arriving file {name} is left" for name in files_in(system.bridge_root / "incoming")]
    for agent_id in AGENTS:
        found += [f"inbox file {name} of {agent_id} is left" for name in files_in(system.agent_dir(agent_id) / "inbox")]
    return found


def _judge_beats(plan: Plan, beats: Mapping[str, LiveHeartbeat]) -> list[str]:
    """Check that the last heartbeats report no work to do."""
    found = []
    bridge = beats.get(BRIDGE)
    if bridge is None or not isinstance(bridge.message, BridgeHeartbeat):
        return ["the bridge was never heard"]
    queue = bridge.message.queue
    if (queue.jobs_ready, queue.jobs_leased, queue.chunks_waiting, queue.jobs_failed) != (0, 0, 0, plan.poisoned):
        found.append(f"the bridge's heartbeat says {queue}")
    for agent_id in AGENTS:
        beat = beats.get(agent_id)
        if beat is not None and isinstance(beat.message, AgentHeartbeat) and beat.message.jobs:
            found.append(f"the heartbeat of {agent_id} lists {len(beat.message.jobs)} jobs")
    return found
