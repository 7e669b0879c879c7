"""Repeated audio: chunks that begin before the one before them ends, so that what they share is sent twice. Pure.

A recorder that cuts 10 s every 9 s sends a tenth of its audio twice. Laid end to end such chunks last longer than they
took to record, and their speech drifts from the transcript. So each counts only until the next one was captured.

Samples that are read at a wrong rate last too long as well, and repeat nothing. Where much would be left out, what the
jobs heard decides: the end of a chunk must say the same as the beginning of the next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

from schemas.turns import SpeakerTurn
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.rules.assemble import COARSE_S, ChunkInfo, order_chunks

CHUNKS_OVERLAP = "audio.chunks_overlap"
MIN_STEPS = 3
"""Fewer steps of captured_at may all be jitter, or a clock that was set."""
MAX_SHARED_S = 0.5  # as much as chunks that follow each other may be apart
MIN_ALL_SHARED_S = 2.0
"""All chunks together share more than this: the jitter of time stamps does not add up, nor does their rounding."""
MIN_SHARE = 0.0125
"""Chunks share more than this of their length: as much may be a recorder's clock that runs too fast, and the offset of
such audio is followed (`offset_line`)."""
SURE_SHARE = 0.1
"""Where they share more, the jobs must have heard the same twice."""
MIN_ALIKE = 0.8
STEP_S = 0.1


def without_repeated(chunks: Sequence[ChunkInfo], jobs: Iterable[JobEvidence]) -> tuple[ChunkInfo, ...]:
    """Return the chunks, each as long as until the next one begins, where by captured_at they overlap all along."""
    steps_s = _overlapping_steps(chunks)
    share = median(1 - step_s / length_s for step_s, length_s in steps_s.values()) if steps_s else 0.0
    if not steps_s or (share > SURE_SHARE and not _is_heard_twice(jobs, order_chunks(chunks), steps_s)):
        return tuple(chunks)
    kept_s = {chunk_id: min(both) for chunk_id, both in steps_s.items()}
    return tuple(replace(chunk, duration_s=kept_s.get(chunk.chunk_id, chunk.duration_s)) for chunk in chunks)


def describe_overlap(chunks: Sequence[ChunkInfo]) -> str | None:
    """Return a warning where by captured_at most chunks begin before the one before them ends."""
    timed = [chunk for chunk in order_chunks(chunks) if _is_timed(chunk)]
    steps = [(_step_s(chunk, following), chunk.duration_s) for chunk, following in pairwise(timed)]
    shared_s = [length_s - step_s for step_s, length_s in steps]
    if len(steps) < MIN_STEPS or not _adds_up(steps):
        return None
    if median(shared_s) <= MAX_SHARED_S and not _overlapping_steps(chunks):
        return None
    return (
        f"{CHUNKS_OVERLAP}: by captured_at a chunk begins {median(shared_s):.1f} s before the one before it ends: "
        "send each second once, with the time of its first sample"
    )


def _overlapping_steps(chunks: Iterable[ChunkInfo]) -> dict[str, tuple[float, float]]:
    """Return by chunk how long after it the next one begins, and how long it is; none where they do not overlap.

    One that begins before the middle of the one before it is a second recording of the same time (`place_chunks`).
    """
    steps_s = {
        chunk.chunk_id: (step_s, chunk.duration_s)
        for chunk, following in pairwise(order_chunks(chunks))
        if _is_timed(chunk) and following.captured_at_s is not None
        if not chunk.captured_error_s  # when audio arrived says little about when it was recorded
        if (step_s := _step_s(chunk, following)) > max(0.0, 0.5 * chunk.duration_s - MAX_SHARED_S)
    }
    if len(steps_s) < MIN_STEPS:
        return {}
    few = len(steps_s) // 4  # behind these there may be pauses
    share = sorted(1 - step_s / length_s for step_s, length_s in steps_s.values())[few]
    shared_s = sorted(length_s - step_s for step_s, length_s in steps_s.values())[few] * len(steps_s)
    is_much = share > MIN_SHARE and shared_s > MIN_ALL_SHARED_S and _adds_up(steps_s.values(), MIN_SHARE)
    return steps_s if is_much else {}


def _adds_up(steps: Iterable[tuple[float, float]], min_share: float = 0.0) -> bool:
    """Whether all chunks together share more than chance and rounding make of it, by (step, length); pauses aside.

    Times in whole seconds make most steps of chunks of 5.12 s too short, and every eighth makes up for that.
    """
    close = [(step_s, length_s) for step_s, length_s in steps if step_s <= length_s + COARSE_S]
    all_s = sum(length_s for _, length_s in close)
    return all_s - sum(step_s for step_s, _ in close) > max(MIN_ALL_SHARED_S, min_share * all_s)


def _is_timed(chunk: ChunkInfo) -> bool:
    return chunk.captured_at_s is not None and chunk.duration_s > 0 and not chunk.is_estimated


def _step_s(chunk: ChunkInfo, following: ChunkInfo) -> float:
    return (following.captured_at_s or 0.0) - (chunk.captured_at_s or 0.0)


def _is_heard_twice(
    jobs: Iterable[JobEvidence], ordered: Sequence[ChunkInfo], steps_s: Mapping[str, tuple[float, float]]
) -> bool:
    """Whether in most of what chunks share by captured_at a job heard the same in both of them."""
    follower = {chunk.chunk_id: following.chunk_id for chunk, following in pairwise(ordered)}
    alike = compared = 0
    for job in jobs:
        turns = sorted(job.exclusive_turns, key=lambda turn: turn.start_s)
        starts_s = [turn.start_s for turn in turns]
        for span, after in pairwise(sorted(job.chunks, key=lambda span: span.start_s)):
            if span.chunk_id not in steps_s or follower[span.chunk_id] != after.chunk_id:
                continue
            step_s, length_s = steps_s[span.chunk_id]
            for count in range(int((length_s - step_s) / STEP_S)):
                moment_s = (count + 0.5) * STEP_S
                first = _who(turns, starts_s, span.start_s + step_s + moment_s)
                alike += first == _who(turns, starts_s, after.start_s + moment_s)
                compared += 1
    return compared > 0 and alike >= MIN_ALIKE * compared


def _who(turns: Sequence[SpeakerTurn], starts_s: Sequence[float], moment_s: float) -> str | None:
    """Return who speaks at a moment of a job; the turns are sorted."""
    place = bisect_right(starts_s, moment_s) - 1
    return turns[place].speaker if place >= 0 and moment_s < turns[place].end_s else None
