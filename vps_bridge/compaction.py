"""Keeping ledger and store small: what nothing happens to any more is packed, and unused room goes back to the disk.

One small step at a time on the bridge's own thread, so that no receipt waits: a conversation, or a few pages.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import structlog

from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.database import STORAGE_ERRORS
from vps_bridge.labelling.forget_voices import FORGOTTEN
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.packing import Brief
from vps_bridge.ledger.records import ConversationRecord
from vps_bridge.packed_rows import PackedRowsDamaged
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
LOOK_S = 60.0  # between two looks for what can be packed, while nothing can
AT_ONCE = 100  # conversations that one look finds
FREED_PAGES = 200  # of 4 KiB, in one step
REST = 9.0  # after a step it rests so many times as long: a tenth of the bridge's time at most


class Compaction:
    """Packs idle conversations and gives unused pages back. Runs on the bridge's own thread only."""

    def __init__(self, settings: BridgeSettings, ledger: Ledger, store: ConversationStore) -> None:
        """Work on this ledger and store."""
        self._settings, self._ledger, self._store = settings, ledger, store
        self._found: deque[str] = deque()
        self._failed: set[str] = set()
        self._due_s = 0.0

    def note_final(self, now_s: float) -> None:
        """Note that a conversation became final: look for it once it was quiet long enough."""
        self._due_s = min(self._due_s, now_s + self._quiet_s())

    def step(self, now_s: float) -> bool:
        """Do the next step, if one is due; return whether there was anything to do."""
        if now_s < self._due_s:
            return False
        began_s = time.perf_counter()
        is_more = self._do_next()
        self._due_s = now_s + (REST * (time.perf_counter() - began_s) if is_more else LOOK_S)
        return is_more

    def _do_next(self) -> bool:
        if not self._found:
            self._found.extend(self._look())
        if self._found:
            self._pack(self._found.popleft())
            return True
        return self._ledger.free_pages(FREED_PAGES) + self._store.free_pages(FREED_PAGES) > 0

    def _look(self) -> list[str]:
        """Return what can be packed: in the ledger, and what only the store has unpacked, for somebody who read it."""
        idle = self._ledger.packs.idle(time.time() - self._quiet_s(), AT_ONCE)
        left = self._ledger.packs.packed_among(self._store.unpacked())
        return [name for name in dict.fromkeys([*idle, *sorted(left)]) if name not in self._failed]

    def _quiet_s(self) -> float:
        """Return how long nothing may have happened; voice samples are never packed."""
        return max(self._settings.keep_details_s, self._settings.keep_samples_s)

    def _pack(self, name: str) -> None:
        conversation = self._ledger.conversations.peek(name)
        if conversation is None:
            return
        try:
            if conversation.packed_at is None:
                brief = self._describe(conversation)
                if not self._ledger.packs.pack(name, brief, time.time() - self._quiet_s()):
                    return  # something happened meanwhile
            self._store.pack(name)
        except PackedRowsDamaged as error:
            self._failed.add(name)
            _LOG.error("not_packed", conversation=name, error=str(error))

    def _describe(self, conversation: ConversationRecord) -> Brief:
        results = self._ledger.jobs.results(conversation.conversation_id)
        return Brief(
            voices=brief_voices(conversation.voices),
            people=find_people(conversation.updated_payload or b"{}"),
            holds_voices=any(FORGOTTEN.encode() not in result.payload for result in results),
        )


def make_shrinkable(ledger: Ledger, store: ConversationStore) -> None:
    """Rewrite the files of an earlier version once, when the bridge starts, so that they can give room back."""
    files = {"ledger": ledger.make_shrinkable}
    if isinstance(store, SqliteConversations):  # what is elsewhere is not ours to rewrite
        files["conversations"] = store.make_shrinkable
    for part, shrink in files.items():
        try:
            done, why = shrink(), "no room on the disk for a second copy"
        except STORAGE_ERRORS as error:
            done, why = False, str(error)
        if not done:
            _LOG.warning("file_cannot_shrink", file=part, reason=why, remedy="make room, and start the bridge again")


def brief_voices(voices: Any) -> Any:  # noqa: ANN401 - as the ledger keeps them
    """Return a conversation's voices without what they are made of: their numbers, and who they are."""
    if not voices:
        return voices
    book = VoiceBook.from_json(voices)
    voices = tuple(replace(voice, members=(), segments=()) for voice in book.voices)
    return replace(book, voices=voices, lines={}).to_json()


def find_people(update: bytes) -> list[str]:
    """Return the ids of people that an update names."""
    return sorted(set(_named_in(json.loads(update))))


def _named_in(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        for item in value:
            yield from _named_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and ("person" in key or "matched" in key):
                yield item
            else:
                yield from _named_in(item)
