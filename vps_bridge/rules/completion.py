"""Whether a conversation is complete: whether all of it is here, and how long to wait for what is not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MISSING_QUIET_FACTOR = 10  # times `quiet_s`: how long to wait for audio that was named and does not come
MISSING = "audio.missing"
CLOCK_TOLERANCE_S = 0.5  # between the end of the last chunk and the `last_audio_at` of the `completed` event


@dataclass(frozen=True)
class CompletionFacts:
    """What decides whether a completed conversation that has all its results is final."""

    conversation_id: str
    chunks: int
    completed_chunks: int | None
    last_audio_at_s: float | None
    audio_until_s: float | None
    """Unix time up to which audio has come, where captured_at tells."""


def is_all_here(end: CompletionFacts) -> bool | None:
    """Whether everything a `completed` event named has come; None where it named nothing that can be checked."""
    checks = []
    if end.completed_chunks is not None:
        checks.append(end.chunks >= end.completed_chunks)
    if end.last_audio_at_s is not None and end.audio_until_s is not None:
        checks.append(end.audio_until_s >= end.last_audio_at_s - CLOCK_TOLERANCE_S)
    return all(checks) if checks else None


def is_final(end: CompletionFacts, *, idle_s: float, quiet_s: float) -> bool:
    """Whether a completed conversation that has all its results waits for nothing more."""
    return idle_s >= required_quiet_s(end, quiet_s=quiet_s)


def describe_missing(end: CompletionFacts) -> str | None:
    """Return as a warning what a `completed` event named and what never came, or None where all of it came."""
    if is_all_here(end) is not False:
        return None
    if end.chunks < (end.completed_chunks or 0):
        return f"{MISSING}: of the {end.completed_chunks} chunks that completed named, {end.chunks} came"
    behind_s = (end.last_audio_at_s or 0.0) - (end.audio_until_s or 0.0)
    return f"{MISSING}: it ends {behind_s:,.0f} s before the last_audio_at that completed named"


def required_quiet_s(end: CompletionFacts, *, quiet_s: float) -> float:
    """Return for how many seconds no audio must have come before such a conversation is final.

    0 where all that its `completed` event named has come, ten times `quiet_s` where some of it is missing, and
    `quiet_s` where the event named nothing.
    """
    all_here = is_all_here(end)
    if all_here is None:
        return quiet_s
    return 0.0 if all_here else MISSING_QUIET_FACTOR * quiet_s
