"""One attempt at a message: a signed POST, within a time, that follows no redirect and reads nothing of the answer."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version as package_version

from schemas.webhook_headers import DELIVERY, SCHEMA, SIGNATURE
from vps_bridge.ledger.webhook_outbox import WebhookMessage
from vps_bridge.webhook.receiver import NOT_ENCRYPTED, Receiver, sign

OK, REDIRECT, CLIENT_ERROR = 200, 300, 400


class NotDelivered(Exception):
    """The receiver did not take a message; its words say why, and never what was sent or answered."""


class Post:
    """Sends messages, one at a time. `abort`, from another thread, ends the attempt that is under way."""

    def __init__(self, receiver: Receiver) -> None:
        """Send to this receiver."""
        self._receiver = receiver
        self._agent = f"omi-diarization/{package_version('omi-diarization')}"
        self._connection: http.client.HTTPConnection | None = None
        self._is_cut_off = False

    def send(self, message: WebhookMessage, now: int) -> None:
        """Send a message; `now` is Unix time, for the signature. Raises `NotDelivered`."""
        receiver = self._receiver
        headers = {
            "Content-Type": "application/json",
            "User-Agent": self._agent,
            DELIVERY: message.delivery_id,
            SIGNATURE: sign(receiver.secret, now, message.body),
            SCHEMA: message.schema_name,
            "Connection": "close",
        }
        self._is_cut_off = False
        try:
            with self._connected() as connection:
                connection.request("POST", receiver.target, message.body, headers)
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: the socket was closed meanwhile
            raise NotDelivered(f"{receiver.shown}: {_describe(error, receiver.timeout_s)}") from error
        if self._is_cut_off:  # the library takes headers that end there for whole ones
            raise NotDelivered(f"{receiver.shown}: {_describe(TimeoutError(), receiver.timeout_s)}")
        if not OK <= status < REDIRECT:
            raise NotDelivered(f"{receiver.shown} answered {status}{_advise(status)}")

    def abort(self) -> None:
        """End the attempt that is under way, if any: it counts as not delivered."""
        self._is_cut_off = True
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which another thread may be using

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """Yield a connection, to be used for `timeout_s` at most: a timeout of the socket is one for each byte."""
        connection = self._connection = _make_connection(self._receiver)
        deadline = threading.Timer(self._receiver.timeout_s, self.abort)
        deadline.daemon = True
        try:
            connection.connect()
            if not self._receiver.allows(connection.sock.getpeername()[0]):
                raise NotDelivered(f"{self._receiver.shown}: {NOT_ENCRYPTED}")
            deadline.start()
            yield connection
        finally:
            deadline.cancel()
            self._connection = None
            connection.close()


def _make_connection(receiver: Receiver) -> http.client.HTTPConnection:
    if receiver.scheme == "http":
        return http.client.HTTPConnection(receiver.host, receiver.port, timeout=receiver.timeout_s)
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(receiver.host, receiver.port, timeout=receiver.timeout_s, context=context)


def _describe(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError | http.client.RemoteDisconnected | ValueError):
        return f"no answer within {timeout_s:g} s, or it hung up"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted ({error.verify_message})"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"its answer is no HTTP ({type(error).__name__})"


def _advise(status: int) -> str:
    if REDIRECT <= status < CLIENT_ERROR:
        return ": redirects are not followed, set OMI_WEBHOOK_URL to where it leads"
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return ": has it the same secret (OMI_WEBHOOK_SECRET), and the right time?"
    return ""
