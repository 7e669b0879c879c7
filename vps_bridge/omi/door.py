"""The way in for OMI's webhooks, if there is one: opened when its port can be had. For the bridge's own thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vps_bridge.conversations.store import ConversationStore
from vps_bridge.error_guard import ErrorGuard
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.intake.intake import Intake
from vps_bridge.ledger import Ledger
from vps_bridge.mailbox import Mailbox
from vps_bridge.omi.capture import CAPTURE
from vps_bridge.omi.users import OMI
from vps_bridge.settings import BridgeSettings

if TYPE_CHECKING:
    from vps_bridge.omi.server import OmiServer

OMI_DOOR = "omi webhooks"
OMI_LABELS = "labels to omi"
LABELS_REMEDY = "look at OMI's backend; they are sent once it takes them"
RETRY_S = 5.0  # a port that is taken may be given back
TELL_EVERY_S = 60.0  # what was turned away is told so often at most


class OmiDoor:
    """The listener and what belongs to it, or nothing where `omi_http_port` is 0.

    Where it was on before, what it kept is still given to its conversations, and erased when its time is over.
    """

    def __init__(
        self,
        settings: BridgeSettings,
        mailbox: Mailbox,
        intake: Intake,
        ledger: Ledger,
        store: ConversationStore,
        *,
        guard: ErrorGuard,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the capture log, and no port yet. Raises `OSError`."""
        self._settings, self._guard = settings, guard
        self._due_s, self._tell_s, self._told = 0.0, 0.0, 0
        self._server: OmiServer | None = None
        self._is_on = settings.omi_http_port != 0
        if self._is_on or any((settings.root / OMI / CAPTURE).glob("*.log")):
            # Imported here: every command imports this file, and only `run` needs uvicorn.
            from vps_bridge.omi.server import OmiServer  # noqa: PLC0415

            self._server = OmiServer(settings, mailbox, intake, ledger, store, clock=clock)

    @property
    def counts(self) -> CaptureCounts | None:
        """What was counted since the start, None where there is no listener. May be read from any thread."""
        return self._server.counts if self._server is not None and self._is_on else None

    def keep_open(self, now_s: float, on_problem: Callable[[], None]) -> None:
        """Open it where it is not open; call `on_problem` where it cannot be, or had to turn POSTs away."""
        server = self._server
        if server is None or not self._is_on:
            return
        if now_s >= self._tell_s and self._tell(server.counts):
            self._tell_s = now_s + TELL_EVERY_S
            on_problem()
        if now_s < self._due_s or server.is_open:
            return
        self._due_s = now_s + RETRY_S
        try:
            server.open()
        except OSError as error:
            where = f"{self._settings.omi_http_host}:{self._settings.omi_http_port}"
            words = f"{where} cannot be had ({error.strerror}): end what uses it, or set OMI_OMI_HTTP_PORT (0: off)"
            self._guard.note(OMI_DOOR, words)
            on_problem()

    def _tell(self, counts: CaptureCounts) -> bool:
        """Tell of what was turned away since this was told last, and of labels that wait; return whether there was."""
        if counts.labels_error:
            words = f"labels of {counts.labels_waiting} conversations wait"
            self._guard.note(OMI_LABELS, f"{words}: {counts.labels_error}; {LABELS_REMEDY}")
        is_news = counts.turned_away > self._told
        if is_news:
            self._told = counts.turned_away
            words = f"{self._told} POSTs were turned away since the start, OMI drops what they held"
            self._guard.note(OMI_DOOR, f"{words}: {counts.reason}")
        return is_news or bool(counts.labels_error)

    def close(self) -> None:
        """Take no more; returns at once."""
        if self._server is not None:
            self._server.close()

    def join(self) -> None:
        """Wait for what was under way, once the mailbox is closed."""
        if self._server is not None:
            self._server.join()
