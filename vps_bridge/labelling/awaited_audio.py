"""Awaited audio: where a job's audio ended at a hole that was known and may still be filled.

What a job says about the last moments before a hole is often wrong: who begins to speak there is heard for a few tenths
of a second. The audio that fills the hole will be heard together with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from schemas.turns import ChunkSpan
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.rules.assemble import ChunkInfo, PlacedChunk, follows_at_once


@dataclass(frozen=True)
class AwaitedAudio:
    """For one job, the chunks next to which audio is missing that may still come."""

    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()


NOTHING_AWAITED = AwaitedAudio()


@dataclass(frozen=True)
class _Border:
    """The border between two chunks that follow each other in time."""

    before: str
    after: str
    is_hole: bool
    """Sequence numbers between them are missing."""
    arrived_before: int
    """The earliest arrival of all chunks before the border."""
    arrived_after: int


def find_awaited(
    jobs: Iterable[JobEvidence], chunks: Iterable[ChunkInfo], placed: Sequence[PlacedChunk]
) -> dict[str, AwaitedAudio]:
    """Return by job next to which of its chunks audio is awaited; without the jobs where it is next to none.

    Sequence numbers tell that something is missing. A job counts a hole only if audio from beyond it had arrived before
    the job was made: so what is shown once is not held back later, when audio from beyond an end comes. Where a job
    heard what was missing, or could not decode it, nothing is awaited any more.
    """
    jobs = list(jobs)
    heard = {span.chunk_id for job in jobs for span in job.chunks}.union(*(job.undecoded for job in jobs))
    known = {chunk.chunk_id: chunk for chunk in chunks}
    borders = [
        border
        for border in _list_borders(known, placed)
        if border.is_hole or (border.before in heard) != (border.after in heard)
    ]
    found: dict[str, AwaitedAudio] = {}
    for job in jobs if borders else ():
        own = {span.chunk_id for span in job.chunks}
        last = _last_arrival(job.chunks, known)
        after = frozenset(edge.before for edge in borders if edge.before in own and edge.arrived_after <= last)
        before = frozenset(edge.after for edge in borders if edge.after in own and edge.arrived_before <= last)
        if before or after:
            found[job.job_id] = AwaitedAudio(before, after)
    return found


def _list_borders(known: Mapping[str, ChunkInfo], placed: Sequence[PlacedChunk]) -> list[_Border]:
    """Return the borders at which audio may be missing: of numbered chunks that touch, or that numbers are between."""
    arrivals = [known[place.chunk_id].arrival for place in placed]
    until = list(accumulate(arrivals, min))
    since = list(accumulate(reversed(arrivals), min))[::-1]
    borders = []
    for index, (place, following) in enumerate(pairwise(placed)):
        before, after = known[place.chunk_id].sequence, known[following.chunk_id].sequence
        if before is None or after is None:
            continue
        touches = follows_at_once(place, following)
        is_hole = not touches and after > before + 1
        if touches or is_hole:
            borders.append(_Border(place.chunk_id, following.chunk_id, is_hole, until[index], since[index + 1]))
    return borders


def _last_arrival(spans: Iterable[ChunkSpan], known: Mapping[str, ChunkInfo]) -> int:
    return max((known[span.chunk_id].arrival for span in spans if span.chunk_id in known), default=-1)
