"""The way into the bridge over HTTP: opened when its port can be had, and closed with what is under way answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from vps_bridge.error_guard import ErrorGuard
from vps_bridge.http.one_off import OneOffRequests
from vps_bridge.intake.intake import Intake
from vps_bridge.mailbox import Mailbox, WorkRequest
from vps_bridge.publisher import HeldPublisher
from vps_bridge.settings import BridgeSettings

if TYPE_CHECKING:
    from vps_bridge.http.server import HttpServer

HTTP_DOOR = "http door"
HTTP_RETRY_S = 5.0  # a port that is taken may be given back
HTTP_CLOSE_S = 8.0  # longer than the server gives requests that are under way
CLOSE_POLL_S = 0.1


class HttpDoor:
    """The bridge's HTTP server, if it is to have one. Used by the bridge's own thread only."""

    def __init__(
        self,
        settings: BridgeSettings,
        mailbox: Mailbox,
        intake: Intake,
        one_offs: OneOffRequests,
        *,
        publisher: HeldPublisher,
        guard: ErrorGuard,
    ) -> None:
        """Open nothing yet. Raises `SettingsError` where the token cannot be one, or is missing where it is needed."""
        self._settings, self._mailbox, self._one_offs = settings, mailbox, one_offs
        self._publisher, self._guard = publisher, guard
        self._due_s = 0.0
        self._server: HttpServer | None = None
        if settings.http_port != 0:
            # Imported here: every command imports this file, and only `run` needs FastAPI.
            from vps_bridge.http.server import HttpServer  # noqa: PLC0415

            self._server = HttpServer(settings, mailbox, intake, one_offs)

    def take(self, request: WorkRequest[object]) -> None:
        """Do what a request asks of the bridge's own thread."""
        self._guard.run(HTTP_DOOR, partial(request.run, self._publisher.hold))

    def keep_open(self, now_s: float, on_problem: Callable[[], None]) -> None:
        """Open it where it is not open; where that cannot be, `on_problem` is called and it is tried again later."""
        if self._server is None or now_s < self._due_s or self._server.is_open:
            return
        self._due_s = now_s + HTTP_RETRY_S
        try:
            self._server.open()
        except OSError as error:
            where = f"{self._settings.http_host}:{self._settings.http_port}"
            words = f"{where} cannot be had ({error.strerror}): end what uses it, or set OMI_HTTP_PORT (0: no door)"
            self._guard.note(HTTP_DOOR, words)
            on_problem()

    def end_one_offs(self) -> None:
        """Refuse the one-off requests that wait, and delete their conversations; also those of an earlier run."""
        self._guard.run(HTTP_DOOR, self._one_offs.end_all)

    def close(self) -> None:
        """Let requests that are under way end, as far as they do so soon; those that wait for long get a refusal."""
        deadline_s = time.monotonic() + HTTP_CLOSE_S
        self.end_one_offs()
        if self._server is not None:
            self._server.close()
            while self._server.is_open and time.monotonic() < deadline_s:
                item = self._mailbox.take(CLOSE_POLL_S)
                if isinstance(item, WorkRequest):  # a message has an owner that offers it again
                    self.take(item)
                    self._guard.run("sending", self._publisher.flush)
            self.end_one_offs()
        self._mailbox.close()
