"""Durations in words for people."""

from __future__ import annotations

ROUNDED_FROM_S = 10.0


def seconds(duration_s: float) -> str:
    """Return `60 s`, and of a short duration two digits: `0.25 s`, so that none reads `0 s` but no time at all."""
    return f"{duration_s:.0f} s" if duration_s >= ROUNDED_FROM_S else f"{duration_s:.2g} s"
