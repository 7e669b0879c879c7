"""News from whoever else writes into a ledger on a server (LISTEN and NOTIFY)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from broker.backoff import Backoff
from vps_bridge.error_guard import describe_error
from vps_bridge.ledger.news import OnNews
from vps_bridge.ledger.server_connection import LedgerServer, ServerConnection

_LOG = structlog.get_logger(__name__)
CHANNEL = "omi_ledger"
WAIT_S = 1.0
CLOSE_S = 5.0
MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 5.0


class ServerNews:
    """One thread with a connection of its own, which waits for what others announce (`NOTIFY`)."""

    def __init__(self, server: LedgerServer, own_ids: Callable[[], set[int]], on_news: OnNews) -> None:
        """Begin. `own_ids` are the server's numbers of our own connections; `on_news` is called from the thread."""
        self._server, self._own_ids, self._on_news = server, own_ids, on_news
        self._stopping, self._has_heard = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="ledger-news", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Tell no more."""
        self._stopping.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        pauses = first = Backoff.start(MIN_PAUSE_S, MAX_PAUSE_S)
        while not self._stopping.is_set():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - it is only told later: what is new is found by looking
                if pauses is first:
                    _LOG.info("ledger_tells_nothing", error=describe_error(error))
                self._stopping.wait(pauses.jittered_s())
                pauses = pauses.longer()
            if self._has_heard:
                self._has_heard, pauses = False, first

    def _listen(self) -> None:
        kept = ServerConnection(self._server, sync_commits=True)
        try:
            kept.exchange(b"LISTEN %s" % CHANNEL.encode())
            kept.rest()
            self._has_heard = True
            while not self._stopping.is_set():
                found, own = kept.wait_for_news(WAIT_S), self._own_ids()
                words = {word for number, word in found if number not in own}
                if words:
                    self._on_news(words)
        finally:
            kept.close()
