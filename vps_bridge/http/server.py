"""The HTTP server, in a thread of the bridge's process."""

from __future__ import annotations

import socket
import threading

import structlog
import uvicorn

from vps_bridge.http.access import read_access_rule
from vps_bridge.http.changes import Changes
from vps_bridge.http.connections import CappedProtocol
from vps_bridge.http.export_routes import add_export_routes
from vps_bridge.http.handlers import HttpHandlers
from vps_bridge.http.listening import BACKLOG, listen
from vps_bridge.http.metrics import BridgeMetrics, add_metrics_route
from vps_bridge.http.one_off import OneOffRequests
from vps_bridge.http.own_connection import OwnConnection
from vps_bridge.http.page_routes import add_page_routes
from vps_bridge.http.playback import add_playback_routes
from vps_bridge.http.reading_routes import add_reading_routes
from vps_bridge.http.routes import make_app
from vps_bridge.http.sign_in import SignIns
from vps_bridge.intake.intake import Intake
from vps_bridge.mailbox import Mailbox
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
STOP_GRACE_S = 3  # how long requests in progress have once the bridge stops; those not answered by then get a 503


class HttpServer:
    """Serves HTTP from `open` to `close`. All work on conversations is done by the bridge's own thread."""

    def __init__(self, settings: BridgeSettings, mailbox: Mailbox, intake: Intake, one_offs: OneOffRequests) -> None:
        """Read the token. Raises `SettingsError` where it cannot be one, or is missing where it is needed."""
        self._host, self._port = settings.http_host, settings.http_port
        self._connection, sign_ins = OwnConnection(settings), SignIns(settings.root)
        self._changes = Changes(self._connection)
        handlers = HttpHandlers(settings, mailbox, intake, one_offs)
        app = make_app(handlers, read_access_rule(settings), sign_ins, settings.http_port)
        stale_s = settings.stale_s
        add_reading_routes(app, self._connection, self._changes, lambda: intake.counts.captured, stale_s=stale_s)
        add_export_routes(app, self._connection)
        add_playback_routes(app, self._connection, intake.audio_file)
        metrics = BridgeMetrics(
            stale_s=stale_s,
            dropped=lambda: intake.counts.messages_dropped,
            captured=lambda: intake.counts.captured,
            bucket=lambda: intake.counts.bucket,
        )
        add_metrics_route(app, self._connection, metrics)
        add_page_routes(app, sign_ins, settings.http_port)
        self._config = uvicorn.Config(
            app,
            http=CappedProtocol,
            backlog=BACKLOG,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_GRACE_S,
        )
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        """Whether it serves, or still answers requests that came before `close`."""
        return self._thread is not None and self._thread.is_alive()

    def open(self) -> None:
        """Start to serve. Raises `OSError` where the address is in use or not of this machine."""
        listener = listen(self._host, self._port)
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(
            target=self._serve, args=(self._server, listener), name="http-door", daemon=True
        )
        self._thread.start()
        _LOG.info("http_door_open", host=self._host, port=self._port)

    def close(self) -> None:
        """Take no more requests and end those in progress; returns at once, `is_open` says when that is done."""
        self._changes.end()
        if self._server is not None:
            self._server.should_exit = True

    def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        try:
            server.run([listener])
        finally:
            self._connection.close()
