"""All that is known of a conversation, and what its jobs heard, brought onto one clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerTurns, SpeakerVoice
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.audio_clock import (
    LocalTurn,
    Span,
    clip_turns,
    job_windows,
    own_seconds,
    place_turns,
    stretch_origins,
)
from vps_bridge.labelling.link import LocalSpeaker, LocalVoice, SpeakerLink
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, PlacedChunk, place_chunks


@dataclass(frozen=True)
class JobEvidence:
    """What one finished job says, in the job's own seconds and labels."""

    job_id: str
    chunks: tuple[ChunkSpan, ...]
    """Where each chunk lay in the job, as decoded."""
    turns: tuple[SpeakerTurn, ...]
    exclusive_turns: tuple[SpeakerTurn, ...]
    speakers: tuple[SpeakerVoice, ...]
    embedding_model: str
    embedding_revision: str
    warnings: tuple[str, ...] = ()
    """What its agent had to say about the audio, for a person who wonders why a result is poor."""

    @classmethod
    def from_result(cls, result: SpeakerTurns) -> JobEvidence:
        """Take what counts from a result message."""
        return cls(
            job_id=result.job_id,
            chunks=result.chunks,
            turns=result.turns,
            exclusive_turns=result.exclusive_turns,
            speakers=result.speakers,
            embedding_model=result.engine.embedding_model,
            embedding_revision=result.engine.embedding_revision,
            warnings=result.warnings,
        )


@dataclass(frozen=True)
class ConversationEvidence:
    """All that is known of a conversation."""

    conversation_id: str
    chunks: tuple[ChunkInfo, ...]
    """Every chunk accepted so far; durations from the header are replaced by decoded ones here."""
    jobs: tuple[JobEvidence, ...]
    segments: tuple[StoredSegment, ...] = ()
    started_at_s: float | None = None
    """Unix time of the transcript's zero."""
    voices: VoiceBook = field(default_factory=VoiceBook)
    """What the last relabelling returned."""
    links: tuple[SpeakerLink, ...] = ()
    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None


@dataclass(frozen=True, order=True)
class TimelineTurn:
    """Speech in seconds of its stretch; each second of audio is told by one job only."""

    stretch: int
    start_s: float
    end_s: float
    voice: int
    """Place in `AudioTimeline.voices`."""


@dataclass(frozen=True)
class AudioTimeline:
    """What all jobs together heard."""

    chunks: tuple[ChunkInfo, ...]
    """With decoded durations where a job decoded them."""
    placed: tuple[PlacedChunk, ...]
    origins: tuple[float, ...]
    """Where each stretch begins on the audio clock."""
    voices: tuple[LocalVoice, ...]
    """Every local speaker of every job, sorted by id."""
    turns: tuple[TimelineTurn, ...]
    """One speaker at a time: what labels segments."""
    spoken: tuple[TimelineTurn, ...]
    """With overlap: who spoke when."""
    audio: Mapping[int, tuple[Span, ...]]
    """Per stretch, the seconds that some job heard."""
    warnings: tuple[str, ...]

    @property
    def audio_s(self) -> float:
        """Seconds of audio that some job heard."""
        return sum(end_s - start_s for spans in self.audio.values() for start_s, end_s in spans)


def hear(evidence: ConversationEvidence, rules: AssemblyRules) -> AudioTimeline:
    """Bring every job onto the conversation's audio clock and give each second to one of them."""
    jobs = sorted(evidence.jobs, key=lambda job: job.job_id)
    decoded = {span.chunk_id: span.duration_s for job in reversed(jobs) for span in job.chunks}
    chunks = tuple(
        replace(chunk, duration_s=decoded.get(chunk.chunk_id, chunk.duration_s)) for chunk in evidence.chunks
    )
    placed = place_chunks(chunks, rules)
    origins = stretch_origins(chunks, placed)
    by_id = {place.chunk_id: place for place in placed}
    windows = {job.job_id: job_windows(job.chunks, by_id, origins) for job in jobs}
    owned = own_seconds(windows)
    voices: list[LocalVoice] = []
    turns: list[TimelineTurn] = []
    spoken: list[TimelineTurn] = []
    warnings: set[str] = set()
    for job in jobs:
        warnings.update(job.warnings)
        moved = place_turns(job.exclusive_turns, windows[job.job_id])
        found = _local_voices(job, moved, warnings)
        place_of = {voice.id.speaker: len(voices) + index for index, voice in enumerate(found)}
        voices.extend(found)
        spans = _split_by_stretch(owned[job.job_id], origins)
        turns.extend(_heard_turns(clip_turns(moved, spans), place_of, origins))
        overlapping = place_turns(job.turns, windows[job.job_id])
        spoken.extend(_heard_turns(clip_turns(overlapping, spans), place_of, origins))
    if len({voice.embedding_space for voice in voices if voice.embedding is not None}) > 1:
        warnings.add("embedding.mixed_models")
    return AudioTimeline(
        chunks,
        placed,
        origins,
        tuple(voices),
        tuple(sorted(turns)),
        tuple(sorted(spoken)),
        _audio_by_stretch(owned, origins),
        tuple(sorted(warnings)),
    )


def _heard_turns(
    turns: Sequence[LocalTurn], place_of: Mapping[str, int], origins: Sequence[float]
) -> Iterator[TimelineTurn]:
    for turn in turns:
        stretch = _stretch_at((turn.start_s + turn.end_s) / 2, origins)
        origin_s = origins[stretch]
        yield TimelineTurn(stretch, turn.start_s - origin_s, turn.end_s - origin_s, place_of[turn.speaker])


def _local_voices(job: JobEvidence, turns: Sequence[LocalTurn], warnings: set[str]) -> list[LocalVoice]:
    told = {speaker.speaker: speaker for speaker in job.speakers}
    voices = []
    for label in sorted({turn.speaker for turn in (*job.turns, *job.exclusive_turns)} | set(told)):
        embedding = _read_embedding(told[label].embedding) if label in told else None
        if label in told and told[label].embedding is not None and embedding is None:
            warnings.add("embedding.invalid")
        voices.append(
            LocalVoice(
                LocalSpeaker(job.job_id, label),
                tuple((turn.start_s, turn.end_s) for turn in turns if turn.speaker == label),
                told[label].clean_speech_s if label in told else 0.0,
                embedding,
                f"{job.embedding_model}@{job.embedding_revision}",
            )
        )
    return voices


def _read_embedding(data: bytes | None) -> NDArray[np.float32] | None:
    """Return the vector, or None where it is none: no bytes, half a number, NaN, infinity, all zeros."""
    if not data or len(data) % 4:
        return None
    vector = np.frombuffer(data, dtype="<f4")
    return vector if np.isfinite(vector).all() and vector.any() else None


def _stretch_at(moment_s: float, origins: Sequence[float]) -> int:
    return max(0, bisect_right(origins, moment_s) - 1)


def _split_by_stretch(spans: Sequence[Span], origins: Sequence[float]) -> list[Span]:
    """Cut spans of the audio clock where a stretch begins."""
    pieces: list[Span] = []
    for start_s, end_s in spans:
        cuts = [start_s, *(origin_s for origin_s in origins if start_s < origin_s < end_s), end_s]
        pieces.extend(pairwise(cuts))
    return pieces


def _audio_by_stretch(owned: Mapping[str, Sequence[Span]], origins: Sequence[float]) -> dict[int, tuple[Span, ...]]:
    audio: dict[int, list[Span]] = {}
    for start_s, end_s in sorted(piece for spans in owned.values() for piece in _split_by_stretch(spans, origins)):
        stretch = _stretch_at((start_s + end_s) / 2, origins)
        audio.setdefault(stretch, []).append((start_s - origins[stretch], end_s - origins[stretch]))
    return {stretch: tuple(spans) for stretch, spans in audio.items()}
