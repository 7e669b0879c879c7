"""What is counted of a bucket, for `/metrics`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BucketCounts:
    """Counts since the start, and how it is now."""

    calls: int
    failures: int
    outgoing: int
    """Chunks that are on their way into it."""
    is_reachable: bool
