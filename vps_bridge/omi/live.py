"""Live segments: what OMI hears is shown as a conversation of its own until OMI reports which one it was.

OMI names no conversation with live segments. One is begun here for each talk, and deleted when OMI reports that talk,
when its user is removed, or when it is as old as audio may be kept.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType, TranscriptSegment, Verdict
from vps_bridge.intake.intake import Intake
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import LIVE
from vps_bridge.omi.records import hash_name

_LOG = structlog.get_logger(__name__)
APART_S = 115.0
"""OMI ends a conversation after two minutes without speech: what comes so long after the last belongs to the next."""
BACK_S = 30.0
"""OMI counts seconds anew with each conversation: a new segment so far before the last one's end is of the next."""
EDGE_S = 30.0
"""A talk that began so long before or after a reported conversation is of that one."""
MAX_WAITING_SEGMENTS = 2_000  # of a user: what does not fit is shown when the conversation is reported


@dataclass(frozen=True)
class LiveText:
    """Segments of a user that came live."""

    uid: str
    arrived_at: float
    """Unix time."""
    segments: tuple[TranscriptSegment, ...]


class LiveTexts:
    """What came live and is not shown yet. May be used from any thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[str, TranscriptSegment]] = {}
        self._arrived_at: dict[str, float] = {}

    def put(self, text: LiveText) -> None:
        """Add segments; one that is sent again replaces what waits of it."""
        with self._lock:
            waiting = self._waiting.setdefault(text.uid, {})
            room = MAX_WAITING_SEGMENTS - len(waiting)
            waiting.update({segment.id: segment for segment in text.segments[:room]})
            self._arrived_at[text.uid] = text.arrived_at

    def take(self) -> list[LiveText]:
        """Return what waits, of each user at once."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            return [LiveText(uid, self._arrived_at.pop(uid), tuple(them.values())) for uid, them in waiting.items()]


@dataclass
class _Talk:
    conversation_id: str
    last_at: float
    end_s: float = 0.0
    ids: set[str] = field(default_factory=set)

    def has(self, text: LiveText) -> bool:
        """Whether segments that came belong to it."""
        fresh = [segment for segment in text.segments if segment.id not in self.ids]
        is_back = any(segment.start_s < self.end_s - BACK_S for segment in fresh)
        return len(fresh) < len(text.segments) or (text.arrived_at - self.last_at < APART_S and not is_back)


class LiveConversations:
    """Shows live segments. Runs on the bridge's own thread only."""

    def __init__(self, intake: Intake, ledger: Ledger) -> None:
        """Write through `intake`, as if a backend had published it."""
        self._intake, self._ledger = intake, ledger
        self._talks: dict[str, _Talk] = {}
        self._reported: dict[str, frozenset[str]] = {}

    def show(self, text: LiveText) -> None:
        """Add segments to the talk they belong to, or begin one."""
        reported = self._reported.get(text.uid, frozenset())
        segments = tuple(segment for segment in text.segments if segment.id not in reported)
        if not segments:
            return
        text = LiveText(text.uid, text.arrived_at, segments)
        talk = self._talks.get(text.uid) or self._find(text)
        if talk is None or not talk.has(text) or self._ledger.conversations.is_deleted(talk.conversation_id):
            talk = self._begin(text)
        self._talks[text.uid] = talk
        self._take(talk.conversation_id, EventType.SEGMENTS, segments=segments)
        talk.last_at = text.arrived_at
        talk.end_s = max(talk.end_s, *(segment.end_s for segment in segments))
        talk.ids |= {segment.id for segment in segments}

    def end(self, uid: str, segment_ids: Collection[str], span: tuple[float, float]) -> None:
        """Delete what was shown of a conversation that OMI has reported, or thrown away; `span` is when it was."""
        self._reported[uid] = frozenset(segment_ids)
        talk = self._talks.get(uid)
        first, last = span[0] - EDGE_S, span[1] + EDGE_S
        for name, owner in self._ledger.omi.live():
            is_it = talk is not None and talk.conversation_id == name and not talk.ids.isdisjoint(segment_ids)
            if owner == uid and (is_it or first <= began_at(name) <= last):
                self.drop(name)

    def drop(self, conversation_id: str) -> None:
        """Delete a talk."""
        self._take(conversation_id, EventType.DELETED)
        self._talks = {uid: talk for uid, talk in self._talks.items() if talk.conversation_id != conversation_id}

    def _find(self, text: LiveText) -> _Talk | None:
        """Return the latest talk of a user that an earlier run of the bridge began."""
        names = [name for name, owner in self._ledger.omi.live() if owner == text.uid]
        return _Talk(max(names, key=began_at), text.arrived_at) if names else None

    def _begin(self, text: LiveText) -> _Talk:
        name = f"{LIVE}{int(text.arrived_at)}-{hash_name(text.uid).hex()[:8]}-{secrets.token_hex(3)}"
        spoken_s = max(segment.end_s for segment in text.segments)
        started = datetime.fromtimestamp(text.arrived_at - spoken_s, UTC)
        self._take(name, EventType.STARTED, started_at=started, owner=text.uid)
        return _Talk(name, text.arrived_at)

    def _take(self, name: str, kind: EventType, **fields: Any) -> None:  # noqa: ANN401 - the event's fields
        event = ConversationEvent(event_id=f"live-{secrets.token_hex(8)}", type=kind, **fields)
        receipt = self._intake.take_event(name, encode(event))
        if receipt is not None and receipt.verdict is Verdict.REFUSED:
            _LOG.warning("omi_live_not_shown", conversation=name, reason=receipt.reason)


def began_at(conversation_id: str) -> float:
    """Return when a talk began, as its id says (Unix time)."""
    return float(conversation_id.removeprefix(LIVE).partition("-")[0])


def find_over(live: Iterable[tuple[str, str | None]], uids: Collection[str], keep_s: float, now: float) -> list[str]:
    """Return the talks that have been shown for as long as audio is kept, or whose user was removed. Pure."""
    return [name for name, owner in live if now - began_at(name) >= keep_s or owner not in uids]
