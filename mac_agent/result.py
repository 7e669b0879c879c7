"""What the worker found, as the messages that the bridge reads. Pure: NaN, infinity and excess are taken out here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mac_agent.voice_samples import add_samples
from schemas.agent import AgentControl
from schemas.failure import FailureCode, JobFailure, policy_of
from schemas.turns import (
    MAX_EMBEDDING_BYTES,
    MAX_SPEAKERS,
    MAX_TURNS,
    AudioQuality,
    ChunkSpan,
    EngineDescription,
    SpeakerTurn,
    SpeakerTurns,
    SpeakerVoice,
    UndecodedChunk,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mac_agent.engines.engine import EngineInfo, SpeakerEvidence, Turn
    from mac_agent.inference import JobResult

MAX_WARNINGS, MAX_ALIKE_WARNINGS, MAX_TIMINGS, MAX_NAME_CHARS = 50, 3, 50, 200
MAX_TIMING_MS = 1e9
MAX_PEAK = 1e6


def describe_engine(info: EngineInfo) -> EngineDescription:
    """Return the engine as messages name it."""
    return EngineDescription(
        name=info.name[:MAX_NAME_CHARS],
        model=info.model[:MAX_NAME_CHARS],
        revision=info.revision[:MAX_NAME_CHARS],
        device=info.device[:MAX_NAME_CHARS],
        mode=info.mode[:MAX_NAME_CHARS],
        embedding_model=info.embedding_model[:MAX_NAME_CHARS],
        embedding_revision=info.embedding_revision[:MAX_NAME_CHARS],
    )


def to_speaker_turns(offer: AgentControl, lease_id: str, agent_id: str, result: JobResult) -> SpeakerTurns:
    """Return the result of an offered job under the lease it is held by now."""
    undecoded = _undecoded(offer, result)
    warnings = [*_describe_undecoded(undecoded), *result.warnings]
    found = result.diarization
    listed = dict.fromkeys(speaker.speaker for speaker in found.speakers)
    listed |= dict.fromkeys(turn.speaker for turn in (*found.turns, *found.exclusive_turns))
    kept = frozenset(list(listed)[:MAX_SPEAKERS])
    turns, cut = _bounded_turns(found.turns, result.duration_s, kept)
    exclusive, cut_exclusive = _bounded_turns(found.exclusive_turns, result.duration_s, kept)
    if cut or cut_exclusive or len(listed) > MAX_SPEAKERS:
        warnings.insert(0, "turns.truncated")
    message = SpeakerTurns(
        conversation_id=offer.conversation_id or "",
        job_id=offer.job_id or "",
        lease_id=lease_id,
        attempt=offer.attempt,
        agent_id=agent_id,
        engine=describe_engine(result.info),
        duration_s=result.duration_s,
        chunks=tuple(
            ChunkSpan(chunk_id=chunk.chunk_id, start_s=span.start_s, duration_s=span.duration_s)
            for index, (chunk, span) in enumerate(zip(offer.chunks, result.placed, strict=True))
            if index not in result.undecoded
        ),
        undecoded=undecoded,
        turns=turns,
        exclusive_turns=exclusive,
        speakers=tuple(_voice(speaker) for speaker in found.speakers[:MAX_SPEAKERS]),
        quality=AudioQuality(
            peak=min(_finite(result.quality.peak), MAX_PEAK),
            clipped_ratio=min(_finite(result.quality.clipped_ratio), 1.0),
            rms_dbfs=min(max(result.quality.rms_dbfs, -400.0), 200.0),
        ),
        timings_ms={
            name[:MAX_NAME_CHARS]: min(_finite(value), MAX_TIMING_MS)
            for name, value in list(result.timings_ms.items())[:MAX_TIMINGS]
        },
        warnings=tuple(warning[:MAX_NAME_CHARS] for warning in warnings[:MAX_WARNINGS]),
    )
    return add_samples(message, found.samples) if found.samples is not None else message


def to_job_failure(
    offer: AgentControl, lease_id: str, code: FailureCode, message: str, chunk_index: int | None = None
) -> JobFailure:
    """Return the failure of an offered job under the lease it is held by now."""
    chunk = offer.chunks[chunk_index] if chunk_index is not None and chunk_index < len(offer.chunks) else None
    return JobFailure(
        conversation_id=offer.conversation_id or "",
        job_id=offer.job_id,
        lease_id=lease_id,
        chunk_id=chunk.chunk_id if chunk else None,
        sha256=chunk.sha256 if chunk else None,
        attempt=offer.attempt,
        code=code.value,
        retryable=policy_of(code).is_retryable,
        message=message,
    )


def _undecoded(offer: AgentControl, result: JobResult) -> tuple[UndecodedChunk, ...]:
    return tuple(
        UndecodedChunk(chunk_id=offer.chunks[index].chunk_id, message=message)
        for index, message in result.undecoded.items()
    )


def _describe_undecoded(undecoded: Sequence[UndecodedChunk]) -> list[str]:
    code, more = FailureCode.AUDIO_UNDECODABLE, len(undecoded) - MAX_ALIKE_WARNINGS
    lines = [f"{code}: chunk {item.chunk_id}: {item.message}" for item in undecoded[:MAX_ALIKE_WARNINGS]]
    return lines if more <= 0 else [*lines, f"{code}: and {more} more chunks"]


def _bounded_turns(
    turns: Sequence[Turn], duration_s: float, speakers: frozenset[str]
) -> tuple[tuple[SpeakerTurn, ...], bool]:
    """Return turns of these speakers within [0, duration], at most `MAX_TURNS`, and whether some were cut off."""
    kept = tuple(_valid_turns((turn for turn in turns if turn.speaker in speakers), duration_s))
    return kept[:MAX_TURNS], len(kept) > MAX_TURNS


def _valid_turns(turns: Iterable[Turn], duration_s: float) -> Iterable[SpeakerTurn]:
    for turn in turns:
        if not (math.isfinite(turn.start_s) and math.isfinite(turn.end_s)):
            continue
        start_s, end_s = max(turn.start_s, 0.0), min(turn.end_s, duration_s)
        if end_s > start_s:
            yield SpeakerTurn(start_s=start_s, end_s=end_s, speaker=turn.speaker[:64])


def _voice(speaker: SpeakerEvidence) -> SpeakerVoice:
    return SpeakerVoice(
        speaker=speaker.speaker[:64],
        clean_speech_s=_finite(speaker.clean_speech_s),
        embedding=_embedding_bytes(speaker),
    )


def _embedding_bytes(speaker: SpeakerEvidence) -> bytes | None:
    """Return a unit vector as float32 little endian, or None where it is not a vector to trust."""
    if speaker.embedding is None:
        return None
    vector = np.asarray(speaker.embedding, dtype=np.float64).ravel()
    length = float(np.linalg.norm(vector)) if vector.size else 0.0
    if not math.isfinite(length) or length == 0.0 or 4 * vector.size > MAX_EMBEDDING_BYTES:
        return None
    return (vector / length).astype("<f4").tobytes()


def _finite(value: float) -> float:
    """Return a number a message may hold: not negative, not infinite, 0 for what is no number."""
    return max(value, 0.0) if math.isfinite(value) else 0.0
