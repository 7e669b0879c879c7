"""The door itself: a socket and the HTTP server behind it, in a thread of the bridge's process."""

from __future__ import annotations

import socket
import threading

import structlog
import uvicorn

from vps_bridge.http.access import read_access_rule
from vps_bridge.http.handlers import HttpHandlers
from vps_bridge.http.one_off import Intake, OneOffRequests
from vps_bridge.http.routes import make_app
from vps_bridge.mailbox import Mailbox
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
STOP_GRACE_S = 3  # requests under way have so long once the bridge stops; what is not answered by then gets a 503
MAX_CONNECTIONS = 256


class HttpServer:
    """Serves HTTP from `open` to `close`. All work on conversations is asked of the bridge's own thread."""

    def __init__(self, settings: BridgeSettings, mailbox: Mailbox, intake: Intake, desk: OneOffRequests) -> None:
        """Read the token. Raises `SettingsError` where it is none, or is missing where it is needed."""
        self._host, self._port = settings.http_host, settings.http_port
        app = make_app(HttpHandlers(settings, mailbox, intake, desk), read_access_rule(settings))
        self._config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=STOP_GRACE_S,
        )
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        """Whether it serves, or still answers what was under way."""
        return self._thread is not None and self._thread.is_alive()

    def open(self) -> None:
        """Begin to serve. Raises `OSError` where the address cannot be had."""
        listener = _listen(self._host, self._port)
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="http-door", daemon=True)
        self._thread.start()
        _LOG.info("http_door_open", host=self._host, port=self._port)

    def close(self) -> None:
        """Take no more requests and end those under way; returns at once, `is_open` says when it is done."""
        if self._server is not None:
            self._server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # asyncio sends small answers at once (no Nagle, 40 ms) only on a socket that names its protocol.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
