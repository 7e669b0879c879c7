"""Undo and redo of a store: two names of one operation, which each kind of store does in its own way."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from vps_bridge.conversations.store import Applied, WriteKind


@dataclass(frozen=True)
class Reversal:
    """A write that takes back another one, or brings it back; see `ConversationStore.undo`."""

    kind: WriteKind
    version: int
    by: str | None
    write_key: str
    other_lines: Collection[str]


class ReversibleStore(ABC):
    """A `ConversationStore`, as far as its writes can be taken back."""

    def undo(
        self,
        conversation_id: str,
        version: int,
        *,
        by: str | None = None,
        write_key: str | None = None,
        other_lines: Collection[str] = (),
    ) -> Applied:
        """See `ConversationStore.undo`."""
        key = write_key or _new_key("undo", version)
        return self._reverse(conversation_id, Reversal("undo", version, by, key, other_lines))

    def redo(
        self,
        conversation_id: str,
        version: int,
        *,
        by: str | None = None,
        write_key: str | None = None,
        other_lines: Collection[str] = (),
    ) -> Applied:
        """See `ConversationStore.redo`."""
        key = write_key or _new_key("redo", version)
        return self._reverse(conversation_id, Reversal("redo", version, by, key, other_lines))

    @abstractmethod
    def _reverse(self, conversation_id: str, reversal: Reversal) -> Applied:
        """Do it, once for each write key."""


def _new_key(kind: WriteKind, version: int) -> str:
    """Return a key for an undo or a redo that its caller gave none: an attempt that is made again is known by it."""
    return f"{kind}-{version}-{secrets.token_hex(8)}"
