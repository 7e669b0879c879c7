"""What takes back what in a conversation's history: undo, undo of an undo, redo. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vps_bridge.conversations.store import UndoRefused, Write, WriteNotFound


def undone_by(history: Sequence[Write]) -> dict[int, int]:
    """Return by write that is undone now: the undo that took it back. An undo that was undone took nothing back."""
    found: dict[int, int] = {}
    for write in reversed(history):
        if write.undoes is not None and write.version not in found:
            found.setdefault(write.undoes, write.version)
    return found


def find_root(history: Sequence[Write], version: int) -> Write | None:
    """Return the write that an undo, or an undo of one, is about in the end; a write that reverses nothing is that."""
    by_version = {write.version: write for write in history}
    write = by_version.get(version)
    while write is not None and write.undoes is not None:
        write = by_version.get(write.undoes)
    return write


def find_switches(history: Sequence[Write], version: int) -> list[int]:
    """Return a write and all that took it back, or brought it back, in order."""
    found = [version]
    for write in history:
        if write.undoes in found:
            found.append(write.version)
    return found


def find_to_undo(history: Sequence[Write], conversation_id: str, version: int) -> Write:
    """Return the write to reverse for an undo. Raises `WriteNotFound`, or `UndoRefused` where it is undone already."""
    write = _find(history, conversation_id, version)
    undoer = undone_by(history).get(version)
    if undoer is not None:
        raise UndoRefused(
            f"Write {version} of conversation {conversation_id} is undone already, by write {undoer}. "
            f"To bring it back: omi-bridge redo {conversation_id} {version}"
        )
    return write


def find_to_redo(history: Sequence[Write], conversation_id: str, version: int) -> Write:
    """Return the undo to reverse for a redo of it, or of what it undid.

    Raises `WriteNotFound`, or `UndoRefused` where nothing of it is undone.
    """
    write = _find(history, conversation_id, version)
    undone: Mapping[int, int] = undone_by(history)
    if version in undone:
        return _find(history, conversation_id, undone[version])
    if write.kind != "undo":
        raise UndoRefused(
            f"Write {version} of conversation {conversation_id} is not undone: there is nothing to bring back. "
            f"See what is: omi-bridge history {conversation_id}"
        )
    return write


def corrections_in_force(history: Sequence[Write]) -> frozenset[int]:
    """Return the writes with corrections that are not undone."""
    undone = undone_by(history)
    return frozenset(write.version for write in history if write.kind == "correct" and write.version not in undone)


def _find(history: Sequence[Write], conversation_id: str, version: int) -> Write:
    write = next((write for write in history if write.version == version), None)
    if write is None:
        raise WriteNotFound(conversation_id, version)
    return write
