"""The evidence of a conversation: all that is known of it, and what its jobs found, moved onto one clock."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from schemas.turns import SpeakerVoice
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.audio_clock import (
    LocalTurn,
    Span,
    clip_turns,
    divide_between_jobs,
    job_windows,
    place_turns,
    stretch_origins,
    without_overlap,
)
from vps_bridge.labelling.awaited_audio import NOTHING_AWAITED, AwaitedAudio, find_awaited
from vps_bridge.labelling.corrections import KeptCorrection
from vps_bridge.labelling.forget_voices import ERASED, ERASED_SPEAKERS
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.known_people import KnownPeople
from vps_bridge.labelling.link import LocalSpeakerEvidence, SpeakerLink
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.labelling.repeated_audio import without_repeated
from vps_bridge.labelling.sample_set import SampleRules
from vps_bridge.labelling.take_apart import take_apart
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, PlacedChunk, measures_step, place_chunks

MAX_ALIKE_WARNINGS = 3
LENGTH_UNKNOWN = "audio.length_unknown"


@dataclass(frozen=True)
class ConversationEvidence:
    """All that is known of a conversation: the input of a relabelling."""

    conversation_id: str
    chunks: tuple[ChunkInfo, ...]
    """Every chunk accepted so far, with its length as measured or estimated."""
    jobs: tuple[JobEvidence, ...]
    segments: tuple[StoredSegment, ...] = ()
    started_at_s: float | None = None
    """Unix time of the transcript's second 0."""
    voices: VoiceBook = field(default_factory=VoiceBook)
    """What the last relabelling returned as `voices`."""
    links: tuple[SpeakerLink, ...] = ()
    """Of local speakers that are known by id; what people say comes in `segments` and `corrections`."""
    corrections: tuple[KeptCorrection, ...] = ()
    """What people corrected and did not take back, in the order in which they said it."""
    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None
    people: KnownPeople = field(default_factory=KnownPeople)
    """Who may be heard."""
    is_final: bool = False
    """Nothing more is expected: it is completed, and every job has ended."""
    missing: str | None = None
    """The warning about audio that `completed` named and that is not waited for any longer."""


@dataclass(frozen=True, order=True)
class TimelineTurn:
    """A turn in seconds of its stretch."""

    stretch: int
    start_s: float
    end_s: float
    speaker_index: int
    """Index of who speaks in `AudioTimeline.speakers`."""


@dataclass(frozen=True)
class AudioTimeline:
    """What all jobs of a conversation found, on one clock; each second of audio comes from one job only."""

    chunks: tuple[ChunkInfo, ...]
    """With decoded durations where a job decoded them."""
    placed: tuple[PlacedChunk, ...]
    origins: tuple[float, ...]
    """Where each stretch begins on the audio clock."""
    speakers: tuple[LocalSpeakerEvidence, ...]
    """Every local speaker of every job, sorted by id."""
    turns: tuple[TimelineTurn, ...]
    """With overlap: who speaks when, as it is reported."""
    exclusive_turns: tuple[TimelineTurn, ...]
    """One speaker at a time: these decide the labels of segments."""
    audio: Mapping[int, tuple[Span, ...]]
    """By stretch, the seconds that some job covers; without what is held back."""
    warnings: tuple[str, ...]
    awaited: Mapping[str, AwaitedAudio] = field(default_factory=dict)
    """By job, next to which of its chunks something is held back because audio may still come."""

    @property
    def audio_s(self) -> float:
        """Seconds of audio that some job covers."""
        return sum(end_s - start_s for spans in self.audio.values() for start_s, end_s in spans)

    def in_stretches(self, spans: Iterable[Span]) -> Iterator[tuple[int, float, float]]:
        """Yield spans of the audio clock as (stretch, start, end) in seconds of their stretch, cut where one begins."""
        for start_s, end_s in _cut_by_stretch(list(spans), self.origins):
            stretch = _stretch_at((start_s + end_s) / 2, self.origins)
            yield stretch, start_s - self.origins[stretch], end_s - self.origins[stretch]


def build_audio_timeline(evidence: ConversationEvidence, rules: AssemblyRules) -> AudioTimeline:
    """Move every job's turns onto the conversation's audio clock and take each second from one of the jobs."""
    whole = sorted(evidence.jobs, key=lambda job: job.job_id)
    taken_apart = take_apart(whole, SampleRules())
    jobs = taken_apart.jobs
    chunks = _with_decoded_durations(evidence.chunks, jobs, is_final=evidence.is_final)
    placed = place_chunks(without_repeated(chunks, jobs), rules)
    origins = stretch_origins(chunks, placed)
    place_of = {place.chunk_id: place for place in placed}
    awaited = {} if evidence.is_final else find_awaited(jobs, chunks, placed)
    windows = {
        job.job_id: job_windows(job.chunks, place_of, origins, awaited.get(job.job_id, NOTHING_AWAITED)) for job in jobs
    }
    given = divide_between_jobs({job_id: windows[job_id] for job_id in _in_order_made(jobs, chunks)})
    speakers: list[LocalSpeakerEvidence] = []
    turns: list[TimelineTurn] = []
    exclusive_turns: list[TimelineTurn] = []
    for job in jobs:
        moved = place_turns(job.turns, windows[job.job_id])
        moved_exclusive = without_overlap(place_turns(job.exclusive_turns, windows[job.job_id]))
        found = _read_speakers(job, moved_exclusive, taken_apart.voice_of)
        index_of = {speaker.id.speaker: len(speakers) + index for index, speaker in enumerate(found)}
        speakers.extend(found)
        spans = _cut_by_stretch(given[job.job_id], origins)
        turns.extend(_to_stretches(clip_turns(moved, spans), index_of, origins))
        exclusive_turns.extend(_to_stretches(clip_turns(moved_exclusive, spans), index_of, origins))
    return AudioTimeline(
        chunks=chunks,
        placed=placed,
        origins=origins,
        speakers=tuple(speakers),
        turns=tuple(sorted(turns)),
        exclusive_turns=tuple(sorted(exclusive_turns)),
        audio=_audio_by_stretch(given, origins),
        warnings=tuple(sorted({*_collect_warnings(jobs, speakers), *_describe_lost(chunks, placed)})),
        awaited=awaited,
    )


def _in_order_made(jobs: Sequence[JobEvidence], chunks: Iterable[ChunkInfo]) -> list[str]:
    """Return the ids of the jobs in the order in which they could be made: by the arrival of their last chunk."""
    arrival_of = {chunk.chunk_id: chunk.arrival for chunk in chunks}
    last = {job.job_id: max((arrival_of.get(span.chunk_id, 0) for span in job.chunks), default=0) for job in jobs}
    return sorted(last, key=lambda job_id: (last[job_id], job_id))


def _with_decoded_durations(
    chunks: Iterable[ChunkInfo], jobs: Sequence[JobEvidence], *, is_final: bool
) -> tuple[ChunkInfo, ...]:
    """Return the chunks as long as they were decoded; lost are those that were not, whose length is an estimate.

    One that nobody heard is left out once it came again.
    """
    decoded = {span.chunk_id: span.duration_s for job in reversed(jobs) for span in job.chunks}
    undecoded = frozenset[str]().union(*(job.undecoded for job in jobs))
    return tuple(
        replace(chunk, duration_s=decoded[chunk.chunk_id], is_estimated=False)
        if chunk.chunk_id in decoded
        else replace(chunk, is_lost=chunk.is_estimated and (is_final or chunk.chunk_id in undecoded))
        for chunk in _without_replaced(chunks, decoded)
    )


def _without_replaced(chunks: Iterable[ChunkInfo], decoded: Container[str]) -> Iterator[ChunkInfo]:
    """Yield the chunks but those that nobody heard and that came again, under the same captured_at and sequence.

    In order of time such a chunk stands before the one that replaces it, and would part it from those around it.
    Where more than two chunks have the same, a clock or a counter stands still, and nothing came again.
    """
    every = sorted(chunks, key=lambda chunk: chunk.arrival)
    alike: dict[tuple[float | None, int | None], list[ChunkInfo]] = {}
    for chunk in every:
        alike.setdefault((chunk.captured_at_s, chunk.sequence), []).append(chunk)
    alike.pop((None, None), None)
    replaced = {named[0].chunk_id for named in alike.values() if len(named[1:]) == 1}
    return (chunk for chunk in every if chunk.chunk_id in decoded or chunk.chunk_id not in replaced)


def _to_stretches(
    turns: Iterable[LocalTurn], index_of: Mapping[str, int], origins: Sequence[float]
) -> Iterator[TimelineTurn]:
    """Yield turns in seconds of their stretch. Each turn lies within one."""
    for turn in turns:
        stretch = _stretch_at((turn.start_s + turn.end_s) / 2, origins)
        origin_s = origins[stretch]
        yield TimelineTurn(stretch, turn.start_s - origin_s, turn.end_s - origin_s, index_of[turn.speaker])


def _read_speakers(
    job: JobEvidence, exclusive_turns: Sequence[LocalTurn], voice_of: Mapping[LocalSpeaker, str]
) -> list[LocalSpeakerEvidence]:
    """Return a job's local speakers, sorted; also those that only its turns or only its list of speakers names."""
    described = _voices_by_label(job)
    labels = {turn.speaker for turn in (*job.turns, *job.exclusive_turns)} | set(described)
    turns_of: dict[str, list[Span]] = {label: [] for label in labels}
    for turn in exclusive_turns:
        turns_of[turn.speaker].append((turn.start_s, turn.end_s))
    found = []
    for label in sorted(labels):
        embedding = _read_embedding(described[label].embedding) if label in described else None
        # Vectors of another length under one name are of another model: they are never compared.
        length = "" if embedding is None else f"/{embedding.size}"
        evidence = LocalSpeakerEvidence(
            LocalSpeaker(job.job_id, label),
            tuple(turns_of[label]),
            described[label].clean_speech_s if label in described else 0.0,
            embedding,
            f"{job.embedding_model}@{job.embedding_revision}{length}",
            voice_of.get(LocalSpeaker(job.job_id, label)),
        )
        found.append(evidence)
    return found


def _voices_by_label(job: JobEvidence) -> dict[str, SpeakerVoice]:
    return {voice.speaker: voice for voice in job.speakers}


def _read_embedding(data: bytes | None) -> NDArray[np.float32] | None:
    """Return the vector, or None where the bytes are none that can be compared.

    That is: no bytes, part of a number, NaN, infinity, or all zeros.
    """
    if not data or len(data) % 4:
        return None
    vector = np.frombuffer(data, dtype="<f4")
    return vector if np.isfinite(vector).all() and vector.any() else None


def _shorten(warnings: Iterable[str]) -> list[str]:
    """Of lines that differ by their numbers keep the first few: those of hundreds of jobs would hide all others."""
    alike: dict[str, list[str]] = {}
    for line in dict.fromkeys(warnings):
        alike.setdefault(line.partition(":")[0], []).append(line)
    shortened: list[str] = []
    for code, lines in alike.items():
        more = len(lines) - MAX_ALIKE_WARNINGS
        shortened += (
            lines if more <= 0 else [*lines[:MAX_ALIKE_WARNINGS], f"{code}: and {more} more with other numbers"]
        )
    return shortened


def _collect_warnings(jobs: Sequence[JobEvidence], speakers: Sequence[LocalSpeakerEvidence]) -> tuple[str, ...]:
    """Return what the agents reported, and whether embeddings are unusable or not all comparable; sorted."""
    told = (line for job in jobs for line in job.warnings if line.partition(":")[0] != ERASED_SPEAKERS)
    warnings = set(_shorten(told))
    if all(ERASED in job.warnings for job in jobs):
        warnings.discard(ERASED)  # nothing came since that would have to be linked with the voice
    read = {speaker.id for speaker in speakers if speaker.embedding is not None}
    sent = (
        LocalSpeaker(job.job_id, voice.speaker)
        for job in jobs
        for voice in _voices_by_label(job).values()
        if voice.embedding is not None
    )
    if not read.issuperset(sent):
        warnings.add("embedding.invalid")
    if len({speaker.embedding_space for speaker in speakers if speaker.embedding is not None}) > 1:
        warnings.add("embedding.mixed_models")
    return tuple(sorted(warnings))


def _describe_lost(chunks: Iterable[ChunkInfo], placed: Sequence[PlacedChunk]) -> list[str]:
    """Return a warning for each chunk behind which nobody knows how much time has passed."""
    known = {chunk.chunk_id: chunk for chunk in chunks}
    pairs = ((known[before.chunk_id], known[after.chunk_id]) for before, after in pairwise(placed))
    parting = (before.chunk_id for before, after in pairs if before.is_lost and not measures_step(before, after))
    return _shorten(f"{LENGTH_UNKNOWN}: chunk {name}: what follows is placed by its speech" for name in parting)


def _stretch_at(moment_s: float, origins: Sequence[float]) -> int:
    """Return the stretch that contains a moment of the audio clock."""
    return max(0, bisect_right(origins, moment_s) - 1)


def _cut_by_stretch(spans: Sequence[Span], origins: Sequence[float]) -> list[Span]:
    """Cut spans of the audio clock where a stretch begins."""
    pieces: list[Span] = []
    for start_s, end_s in spans:
        cuts = [start_s, *origins[bisect_right(origins, start_s) : bisect_left(origins, end_s)], end_s]
        pieces.extend(pairwise(cuts))
    return pieces


def _audio_by_stretch(given: Mapping[str, Sequence[Span]], origins: Sequence[float]) -> dict[int, tuple[Span, ...]]:
    """Return the spans that some job covers, by stretch and in its seconds."""
    audio: dict[int, list[Span]] = {}
    for start_s, end_s in sorted(piece for spans in given.values() for piece in _cut_by_stretch(spans, origins)):
        stretch = _stretch_at((start_s + end_s) / 2, origins)
        audio.setdefault(stretch, []).append((start_s - origins[stretch], end_s - origins[stretch]))
    return {stretch: tuple(spans) for stretch, spans in audio.items()}
