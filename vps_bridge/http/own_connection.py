"""The HTTP server's own connection to ledger and store: reading for people must not delay the bridge's own thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vps_bridge.conversations.open_store import open_store
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.mailbox import BridgeBusy
from vps_bridge.settings import BridgeSettings

T = TypeVar("T")
MAX_WAITING = 64


class OwnConnection:
    """Ledger and store as a command has them, used on one thread: of many requests one reads at a time.

    What is changed here is on disk at once, and the bridge acts on it at its next tick, as after a command.
    """

    def __init__(self, settings: BridgeSettings) -> None:
        """Open nothing yet: the first request does, when the bridge has made the files."""
        self._settings, self._waiting = settings, 0
        self._thread: ThreadPoolExecutor | None = None
        self._opened: tuple[Ledger, ConversationStore] | None = None

    async def use(self, work: Callable[[Ledger, ConversationStore], T]) -> T:
        """Return what `work` returns, after what was asked before. Raises `BridgeBusy` where too much waits."""
        if self._waiting >= MAX_WAITING:
            msg = f"{MAX_WAITING} requests wait to read"
            raise BridgeBusy(msg)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="http-reading")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)
        finally:
            self._waiting -= 1

    def _run(self, work: Callable[[Ledger, ConversationStore], T]) -> T:
        if self._opened is None:
            self._opened = self._open()
        return work(*self._opened)

    def _open(self) -> tuple[Ledger, ConversationStore]:
        ledger = open_ledger(self._settings, exclusive=False)
        try:
            return ledger, open_store(self._settings)
        except BaseException:
            ledger.close()  # else each further request would leave one more open
            raise

    def close(self) -> None:
        """Close both, after the work that is under way; a later request opens them again."""
        if self._thread is not None:
            self._thread.submit(self._close)
            self._thread.shutdown()
            self._thread = None

    def _close(self) -> None:
        if self._opened is not None:
            ledger, store = self._opened
            ledger.close()
            store.close()
            self._opened = None
