"""What a result may hold: no more than the audio of its job can give a reason for.

Results are stored and worked through again with every relabelling, so one that is far too large would cost for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.turns import SpeakerTurns
from vps_bridge.ledger.jobs import THIN_BYTES_PER_S
from vps_bridge.ledger.records import JobChunk

FREE_TURNS = 200
MAX_TURNS_PER_S = 4.0
"""Lively talk changes speaker every one or two seconds; the shortest turns that engines give last about 0.25 s."""
PCM_BYTES_PER_S = 32_000  # 16 kHz, 16 bits: where a header claims less audio than the bytes hold as plain samples


def find_excess(turns: SpeakerTurns, chunks: Sequence[JobChunk]) -> str | None:
    """Return in words why a result cannot be of this job: too many turns, or chunks of others; None where it can."""
    own = {item.chunk.chunk_id for item in chunks}
    named = [span.chunk_id for span in turns.chunks]
    if len(set(named)) < len(named) or not own.issuperset(named):
        return "it names chunks twice, or chunks that are not its job's"
    audio_s = sum(_longest_s(item) for item in chunks)
    most = round(FREE_TURNS + MAX_TURNS_PER_S * audio_s)
    found = max(len(turns.turns), len(turns.exclusive_turns))
    if found > most:
        return f"it has {found:,} turns, more than {most:,} in {audio_s:,.0f} s of audio"
    return None


def _longest_s(item: JobChunk) -> float:
    duration_s, size = item.chunk.duration_s, item.chunk.bytes
    return max(duration_s, size / PCM_BYTES_PER_S) if duration_s else size / THIN_BYTES_PER_S
