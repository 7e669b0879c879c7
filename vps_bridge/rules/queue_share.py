"""How much of the queue a conversation may use: new ids cost whoever floods the bridge nothing. Pure."""

from __future__ import annotations

from dataclasses import dataclass

KEPT_SHARE = 0.1  # of the queue's limits, for conversations that have begun and use no more than as much themselves


@dataclass(frozen=True)
class QueueUse:
    """Jobs that wait and bytes of audio that are kept: of all conversations or of one, or how many there may be."""

    jobs: int
    bytes: int

    def reaches(self, limit: QueueUse, share: float = 1.0) -> bool:
        """Whether one of the two is as much as this share of its limit."""
        return self.jobs >= share * limit.jobs or self.bytes >= share * limit.bytes


def is_kept_for_others(used: QueueUse, limit: QueueUse) -> bool:
    """Whether what is left of the queue is for those that `may_use_rest`."""
    return used.reaches(limit, 1.0 - KEPT_SHARE)


def may_use_rest(own: QueueUse | None, limit: QueueUse) -> bool:
    """Whether a conversation may use what is left of a queue that is nearly full.

    `own`: what it uses; None where no audio of it was accepted yet.
    """
    return own is not None and not own.reaches(limit, KEPT_SHARE)
