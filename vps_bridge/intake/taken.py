"""What became of audio or an event that came in."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from schemas.conversation import Accepted, ConversationEvent


@dataclass(frozen=True)
class Taken:
    """The outcome for a chunk: its receipt (None: parts are still to come, or `later`), and whether it is new."""

    receipt: Accepted | None
    is_new: bool = False
    later: Future[Taken] | None = None
    """Where the chunk is on its way into a bucket: the outcome once it is there, or cannot be put there."""
    is_late: bool = False
    """Whether it came after the end of its conversation, which named nothing that is still to come."""


@dataclass(frozen=True)
class TakenEvent:
    """The outcome for an event: its receipt (None: `delete` returns it), and the event where there is more to do."""

    receipt: Accepted | None
    event: ConversationEvent | None = None
