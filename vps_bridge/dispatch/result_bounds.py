"""What a result may hold: all chunks of its job, and no more than their audio can give a reason for.

Results are stored and worked through again with every relabelling, so one that is far too large would cost for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.turns import ChunkSpan, SpeakerTurns
from vps_bridge.intake.audio_length import MIN_BYTES_PER_S, MIN_STATED_BYTES_PER_S, is_raw, raw_duration_s
from vps_bridge.ledger.decoded_lengths import replaces
from vps_bridge.ledger.jobs import THIN_BYTES_PER_S
from vps_bridge.ledger.records import ChunkRecord, JobChunk

FREE_TURNS = 200
MAX_TURNS_PER_S = 4.0
"""Lively talk changes speaker every one or two seconds; the shortest turns that engines give last about 0.25 s."""
PCM_BYTES_PER_S = 32_000  # 16 kHz, 16 bits: where a header claims less audio than the bytes hold as plain samples


def find_excess(turns: SpeakerTurns, chunks: Sequence[JobChunk]) -> str | None:
    """Return in words why a result cannot be of this job, or does not say all of it; None where it can be used."""
    own = {item.chunk.chunk_id for item in chunks}
    named = [span.chunk_id for span in turns.chunks] + [chunk.chunk_id for chunk in turns.undecoded]
    if len(set(named)) < len(named) or not own.issuperset(named):
        return "it names chunks twice, or chunks that are not its job's"
    left_out = len(own) - len(named)
    if left_out:  # no label would come from their audio, and nobody would be told
        return f"it does not say what became of {left_out} of the {len(own)} chunks of its job (chunks, undecoded)"
    audio_s = sum(_longest_s(item) for item in chunks)
    most = round(FREE_TURNS + MAX_TURNS_PER_S * audio_s)
    found = max(len(turns.turns), len(turns.exclusive_turns))
    if found > most:
        return f"it has {found:,} turns, more than {most:,} in {audio_s:,.0f} s of audio"
    return None


def bound_lengths(turns: SpeakerTurns, chunks: Sequence[JobChunk], max_audio_s: float) -> SpeakerTurns:
    """Return a result in which no chunk is longer than its bytes can hold, nor all of them than `max_audio_s`.

    Decoded lengths replace what was thought before and place all later audio of the conversation, so one that cannot
    be is ignored: the chunk's length is what it was.
    """
    own = {item.chunk.chunk_id: item.chunk for item in chunks}
    too_long = sum(span.duration_s for span in turns.chunks) > max_audio_s
    bounded = tuple(
        _with_known_length(span, own[span.chunk_id])
        if too_long or span.duration_s > _most_decoded_s(own[span.chunk_id])
        else span
        for span in turns.chunks
    )
    return turns if bounded == turns.chunks else turns.model_copy(update={"chunks": bounded})


def new_lengths(turns: SpeakerTurns, chunks: Sequence[JobChunk]) -> dict[str, float]:
    """Return how long the chunks are as they were decoded, by id; nothing where all are what the ledger says."""
    decoded_s = {span.chunk_id: span.duration_s for span in turns.chunks}
    known = (item.chunk for item in chunks if item.chunk.chunk_id in decoded_s)
    is_news = any(
        replaces(decoded_s[chunk.chunk_id], chunk.duration_s, is_estimated=chunk.duration_estimated) for chunk in known
    )
    return decoded_s if is_news else {}


def _most_decoded_s(chunk: ChunkRecord) -> float:
    """Return what the bytes of a chunk hold at most; known lengths may be wrong by half."""
    if is_raw(chunk.encoding) and chunk.sample_rate:
        return raw_duration_s(chunk.encoding, chunk.bytes, chunk.sample_rate, chunk.channels or 1) + 1.0
    if chunk.duration_s is None or chunk.duration_estimated:
        return chunk.bytes / MIN_BYTES_PER_S
    return max(2 * chunk.duration_s, chunk.bytes / MIN_STATED_BYTES_PER_S)


def _with_known_length(span: ChunkSpan, chunk: ChunkRecord) -> ChunkSpan:
    return span.model_copy(update={"duration_s": chunk.info.duration_s})


def _longest_s(item: JobChunk) -> float:
    duration_s, size = item.chunk.duration_s, item.chunk.bytes
    return max(duration_s, size / PCM_BYTES_PER_S) if duration_s else size / THIN_BYTES_PER_S
