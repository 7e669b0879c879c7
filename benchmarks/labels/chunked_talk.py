"""A recording sent in chunks: the real assembling rules, engine and labelling, in one process and without a broker."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels.shown_labels import STEP_S, ShownLabels, Spoken, error_rate, to_steps
from benchmarks.recordings import SAMPLE_RATE_HZ, Recording
from mac_agent.audio import join_chunks, measure_quality
from mac_agent.engines.engine import Diarization, Engine, Hints, Waveform
from mac_agent.inference import JobResult
from mac_agent.result import to_speaker_turns
from schemas.agent import AgentControl, ControlType, OfferedChunk
from schemas.codec import encode
from vps_bridge.labelling.evidence import ConversationEvidence, build_audio_timeline
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.relabel import RelabelPolicy, relabel
from vps_bridge.rules.assemble import ChunkInfo, JobPlan, plan_jobs

CAPTURED_AT_S = 1_700_000_000.0
LONGEST_S = 14_400.0


@dataclass(frozen=True)
class Delivery:
    """How a recording is sent."""

    chunk_s: float
    """Length of a chunk; infinite: one upload."""
    is_shuffled: bool = False
    lost_share: float = 0.0
    seed: int = 1

    def __str__(self) -> str:
        how = "shuffled" if self.is_shuffled else f"{self.lost_share:.0%} lost" if self.lost_share else "in order"
        return f"{self.chunk_s:g} s, {how}"


ONE_UPLOAD = Delivery(float("inf"))


@dataclass(frozen=True, eq=False)
class DeliveredLabels:
    """What became of a recording sent this way."""

    jobs: int
    message_bytes: int
    """Of the largest result."""
    heard: NDArray[np.bool_]
    """The steps that were sent."""
    shown: ShownLabels
    best: Spoken
    """The last labels, had linking given every speaker of every job to whom it overlaps most."""
    speakers: int

    def final_error(self, reference: Spoken, heard: NDArray[np.bool_]) -> float:
        """Return the error rate of the last labels."""
        return error_rate(reference, self.shown.last, heard)

    def best_error(self, reference: Spoken, heard: NDArray[np.bool_]) -> float:
        """Return the error rate of what the jobs themselves found: what no linking can make better."""
        return error_rate(reference, self.best, heard)

    def live_error(self, reference: Spoken, heard: NDArray[np.bool_]) -> float:
        """Return the error rate of each step's first label."""
        return error_rate(reference, self.shown.first, heard)


class KeptAnswers:
    """An engine whose answers are kept in a folder: the same samples are diarized once."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        """Keep the answers of this engine."""
        self.info = engine.info
        self._engine, self._folder = engine, folder
        folder.mkdir(parents=True, exist_ok=True)

    def diarize(self, waveform: Waveform) -> Diarization:
        """Return the engine's answer, or the one that it gave before."""
        revision = f"{self.info.name} {self.info.revision} {self.info.embedding_revision}".encode()
        path = self._folder / f"{hashlib.sha256(revision + waveform.tobytes()).hexdigest()}.pickle"
        if not path.is_file():
            found = self._engine.diarize(waveform, Hints(), lambda _stage, _done: None)
            path.write_bytes(pickle.dumps(found))
        answer: Diarization = pickle.loads(path.read_bytes())  # noqa: S301 - written by this run
        return answer


@dataclass
class _Conversation:
    """The chunks that arrived so far, and what their jobs found."""

    recording: Recording
    engine: KeptAnswers
    chunks: list[ChunkInfo] = field(default_factory=list)
    jobs: list[JobEvidence] = field(default_factory=list)
    largest: int = 0

    def samples_of(self, chunk: ChunkInfo) -> Waveform:
        start = round(_start_s(chunk) * SAMPLE_RATE_HZ)
        return self.recording.waveform[start : start + round(chunk.duration_s * SAMPLE_RATE_HZ)]

    def run(self, plan: JobPlan) -> None:
        """Do what bridge and agent do for a job, and note that its chunks are in one."""
        by_id = {chunk.chunk_id: chunk for chunk in self.chunks}
        parts = [(self.samples_of(by_id[planned.chunk_id]), planned.start_s) for planned in plan.chunks]
        waveform, placed, warnings = join_chunks(parts, max_s=LONGEST_S)
        found = self.engine.diarize(waveform)
        job_id = f"j{len(self.jobs):03d}"
        offer = AgentControl(
            type=ControlType.OFFER,
            ledger_id="l",
            job_id=job_id,
            lease_id="l",
            conversation_id="c",
            chunks=tuple(
                OfferedChunk(
                    chunk_id=planned.chunk_id, bytes=1, sha256="0" * 64, encoding="wav", start_s=planned.start_s
                )
                for planned in plan.chunks
            ),
        )
        result = JobResult(
            token=1,
            info=self.engine.info,
            duration_s=waveform.size / SAMPLE_RATE_HZ,
            placed=placed,
            diarization=found,
            quality=measure_quality(waveform),
            timings_ms={},
            warnings=warnings,
        )
        message = to_speaker_turns(offer, "l", "bench", result)
        self.largest = max(self.largest, len(encode(message)))
        self.jobs.append(JobEvidence.from_result(message))
        fresh = set(plan.fresh)
        self.chunks = [replace(chunk, covered=chunk.covered or chunk.chunk_id in fresh) for chunk in self.chunks]


def _start_s(chunk: ChunkInfo) -> float:
    return (chunk.captured_at_s or CAPTURED_AT_S) - CAPTURED_AT_S


def cut_chunks(duration_s: float, delivery: Delivery) -> list[ChunkInfo]:
    """Return the chunks of a recording that arrive, in order of arrival."""
    length_s = min(delivery.chunk_s, duration_s)
    starts_s = np.arange(0.0, duration_s - 0.5, length_s)
    ends_s = [*starts_s[1:], duration_s]
    draw = np.random.default_rng(delivery.seed)
    sent = draw.random(len(starts_s)) >= delivery.lost_share
    order = draw.permutation(len(starts_s)) if delivery.is_shuffled else np.arange(len(starts_s))
    return [
        ChunkInfo(f"c{n}", arrival, int(n), CAPTURED_AT_S + float(starts_s[n]), float(ends_s[n] - starts_s[n]))
        for arrival, n in enumerate(order)
        if sent[n]
    ]


def deliver(recording: Recording, delivery: Delivery, engine: KeptAnswers, policy: RelabelPolicy) -> DeliveredLabels:
    """Send a recording, and return what was shown while it came in and in the end."""
    n_steps = round(recording.duration_s / STEP_S) + 1
    shown, heard = ShownLabels(n_steps), np.zeros(n_steps, dtype=bool)
    talk = _Conversation(recording, engine)
    arriving = cut_chunks(recording.duration_s, delivery)
    evidence, zero_s, speakers = ConversationEvidence("c", (), ()), 0.0, 0
    for chunk in [*arriving, None]:
        if chunk is not None:
            talk.chunks.append(chunk)
            heard[round(_start_s(chunk) / STEP_S) : round((_start_s(chunk) + chunk.duration_s) / STEP_S)] = True
        plans = plan_jobs(talk.chunks, closing=chunk is None, idle_s=0.0, rules=policy.assembly)
        for plan in plans:
            talk.run(plan)
        if not plans and chunk is not None:
            continue
        evidence = replace(evidence, chunks=tuple(talk.chunks), jobs=tuple(talk.jobs), is_final=chunk is None)
        labelling = relabel(evidence, policy)
        evidence, speakers = replace(evidence, voices=labelling.voices), labelling.speakers
        zero_s = min(map(_start_s, talk.chunks))
        turns = [(turn.start_s + zero_s, turn.end_s + zero_s, turn.speaker_id) for turn in labelling.turns]
        shown.show(to_steps(turns, n_steps))
    best = _name_rightly(evidence, true_steps(recording), zero_s, policy)
    return DeliveredLabels(len(talk.jobs), talk.largest, heard, shown, best, speakers)


def _name_rightly(evidence: ConversationEvidence, truth: Spoken, zero_s: float, policy: RelabelPolicy) -> Spoken:
    """Return the jobs' turns, each local speaker under the name of whom it overlaps most."""
    timeline = build_audio_timeline(evidence, policy.assembly)
    turns: list[tuple[float, float, int]] = []
    for turn in timeline.turns:
        origin_s = timeline.origins[turn.stretch] + zero_s
        turns.append((turn.start_s + origin_s, turn.end_s + origin_s, turn.speaker_index))
    n_steps = len(next(iter(truth.values())))
    named: Spoken = {}
    for row in to_steps(turns, n_steps).values():
        who = max(truth, key=lambda name: int(np.count_nonzero(truth[name] & row)))
        named[who] = named.get(who, np.zeros(n_steps, dtype=bool)) | row
    return named


def true_steps(recording: Recording) -> Spoken:
    """Return the reference of a recording."""
    return to_steps(recording.reference, round(recording.duration_s / STEP_S) + 1)
