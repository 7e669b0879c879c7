"""Telling open pages that something changed, in a few bytes: they then read again what they show.

One watcher looks at the ledger for all of them, and only while there are any. It sees what other processes write too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from pydantic import BaseModel, Field

from vps_bridge.conversations.store import ConversationStore
from vps_bridge.http.messages import HttpProblem
from vps_bridge.http.outages import OUTAGES
from vps_bridge.http.own_connection import OwnConnection
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.database import Mark
from vps_bridge.ledger.listing import Marks
from vps_bridge.mailbox import BridgeBusy

LOOK_S = 0.25  # between two looks at the ledger
LOOK_REST = 20.0  # a look that took t is not repeated before 20 t have passed
MAX_LISTENERS = 32
MAX_NAMED = 50
QUIET_S = 15.0  # a comment is sent after so long without news, so that no proxy takes the connection for dead
STREAM_S = 600.0  # then the page asks again, and with that whether it is still signed in


class ChangeNotice(BaseModel):
    """What changed: a page that shows it reads it again."""

    conversations: tuple[str, ...] = Field(default=(), description="Ids of those that changed or were deleted.")
    many: bool = Field(default=False, description="More conversations changed than are named: all may have.")
    jobs: bool = Field(default=False, description="A job, or audio that failed.")
    agents: bool = False
    people: bool = Field(default=False, description="Somebody whom an owner knows.")
    webhook: bool = Field(default=False, description="What its receiver has not taken yet.")

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return self == ChangeNotice()

    def merge(self, later: ChangeNotice) -> ChangeNotice:
        """Return both as one, so that a slow reader has one waiting at most."""
        names = tuple(dict.fromkeys((*self.conversations, *later.conversations)))
        too_many = self.many or later.many or len(names) > MAX_NAMED
        return ChangeNotice(
            conversations=() if too_many else names,
            many=too_many,
            jobs=self.jobs or later.jobs,
            agents=self.agents or later.agents,
            people=self.people or later.people,
            webhook=self.webhook or later.webhook,
        )


def compare_marks(before: Marks, after: Marks) -> ChangeNotice:
    """Return what differs."""
    names = before.conversations.keys() | after.conversations.keys()
    changed = sorted(name for name in names if before.conversations.get(name) != after.conversations.get(name))
    return ChangeNotice(
        conversations=tuple(changed) if len(changed) <= MAX_NAMED else (),
        many=len(changed) > MAX_NAMED,
        jobs=(before.jobs, before.refused) != (after.jobs, after.refused),
        agents=before.agents != after.agents,
        people=before.people != after.people,
        webhook=before.webhook != after.webhook,
    )


EVERYTHING = ChangeNotice(many=True, jobs=True, agents=True, people=True, webhook=True)


class _Listener:
    """One open page."""

    def __init__(self) -> None:
        self.notice, self.has_news = ChangeNotice(), asyncio.Event()
        self.is_new = True

    def tell(self, notice: ChangeNotice) -> None:
        self.notice = self.notice.merge(notice)
        self.has_news.set()

    def take(self) -> ChangeNotice:
        taken, self.notice = self.notice, ChangeNotice()
        self.has_news.clear()
        return taken


class Changes:
    """The watcher and its listeners. Used on the HTTP server's event loop, but for `end`."""

    def __init__(self, connection: OwnConnection) -> None:
        """Watch nothing until somebody listens."""
        self._connection = connection
        self._listeners: set[_Listener] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ended = self._looks_anyway = False

    def look_soon(self) -> None:
        """Look even if no other connection has written: this one has."""
        self._looks_anyway = True

    def listen(self) -> AsyncIterator[bytes]:
        """Return what a page is told, as server-sent events. Raises `HttpProblem` where too many listen."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise HttpProblem(503, "bridge.busy", f"{MAX_LISTENERS} pages listen already: close one")
        return self._stream()

    def end(self) -> None:
        """End all streams: the bridge stops. May be called from any thread."""
        self._is_ended = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        for listener in self._listeners:
            listener.has_news.set()

    async def _stream(self) -> AsyncIterator[bytes]:
        listener, until_s = _Listener(), time.monotonic() + STREAM_S
        try:  # from here on the listener is taken off again: a stream that nobody ever reads never comes here
            self._listeners.add(listener)
            self._loop = asyncio.get_running_loop()
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(self._watch())
            yield b"retry: 1000\n\n"
            while not self._is_ended and time.monotonic() < until_s:
                with suppress(TimeoutError):
                    await asyncio.wait_for(listener.has_news.wait(), QUIET_S)
                notice = listener.take()
                if notice.is_empty:
                    yield b": nothing new\n\n"
                else:
                    yield b"event: changed\ndata: " + notice.model_dump_json().encode() + b"\n\n"
        finally:
            self._listeners.discard(listener)

    async def _watch(self) -> None:
        mark: Mark = -1
        marks = None
        while self._listeners and not self._is_ended:
            began_s = time.monotonic()
            looks_anyway, self._looks_anyway = self._looks_anyway, False
            with suppress(BridgeBusy, *OUTAGES):  # then a little later
                mark, latest = await self._connection.use(_Look(None if looks_anyway else mark))
                if latest is not None:
                    notice = compare_marks(marks, latest) if marks is not None else ChangeNotice()
                    marks = latest
                    self._tell_all(notice)
                self._tell_new()
            await asyncio.sleep(max(LOOK_S, LOOK_REST * (time.monotonic() - began_s)))

    def _tell_new(self) -> None:
        """Have new pages read everything again: what changed before the first look after they came is not told."""
        for listener in self._listeners:
            if listener.is_new:
                listener.is_new = False
                listener.tell(EVERYTHING)

    def _tell_all(self, notice: ChangeNotice) -> None:
        for listener in () if notice.is_empty else self._listeners:
            listener.tell(notice)


class _Look:
    """Reads how far everything is, unless nothing was written since a mark."""

    def __init__(self, since: Mark | None) -> None:
        self._since = since

    def __call__(self, ledger: Ledger, _store: ConversationStore) -> tuple[Mark, Marks | None]:
        mark = ledger.listing.change_mark()
        return mark, None if mark == self._since else ledger.listing.marks()
