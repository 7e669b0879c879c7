"""What the listener for OMI's webhooks has counted, for metrics, heartbeat and doctor."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class CaptureCounts:
    """Counted since the start. Written on one thread; whoever reads it may see numbers of the moment before."""

    taken: int = 0
    """POSTs whose audio or words are on disk."""
    unauthorized: int = 0
    malformed: int = 0
    turned_away: int = 0
    """Answered with 503: OMI tries a few times and then drops what it sent."""
    turned_away_at: float | None = None
    """When that was last (Unix time)."""
    reason: str = ""
    """Why, and what to do."""
    kept_bytes: int = field(default=0)
    """Audio and words that are kept until their conversation is reported, or their time is over."""

    labels_waiting: int = 0
    """Conversations whose labels OMI is to be told still, where that failed."""
    labels_error: str = ""
    """Why it failed the last time; empty where nothing waits because of it."""

    def turn_away(self, reason: str, now: float) -> None:
        """Count a POST that found no room."""
        self.turned_away += 1
        self.turned_away_at, self.reason = now, reason
