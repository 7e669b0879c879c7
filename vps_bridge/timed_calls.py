"""HTTP calls that end in time, follow no redirect, and read no more of an answer than they are told."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version as package_version

from vps_bridge.signed_endpoint import SignedEndpoint

OK, REDIRECT, CLIENT_ERROR, SERVER_ERROR = 200, 300, 400, 500


class CallFailed(Exception):
    """No whole answer came; its words say why, and never what was sent or answered."""

    def __init__(self, words: str, *, may_have_arrived: bool) -> None:
        """Say why, and whether the request may have reached the other side."""
        super().__init__(words)
        self.may_have_arrived = may_have_arrived


@dataclass(frozen=True)
class Answer:
    """What the other side answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)
    """One byte more than may be read, where it is longer than that."""


class TimedCalls:
    """Makes calls, one at a time. `abort`, from another thread, ends the one that is under way."""

    def __init__(self, endpoint: SignedEndpoint) -> None:
        """Call this endpoint."""
        self._endpoint = endpoint
        self._agent = f"omi-diarization/{package_version('omi-diarization')}"
        self._socket: socket.socket | None = None  # the library lets go of it once an answer begins
        self._is_cut_off = False

    def call(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, *, max_bytes: int = 0
    ) -> Answer:
        """Return the answer, with at most so many bytes of its body and one more. Raises `CallFailed`."""
        endpoint, is_connected = self._endpoint, False
        own = {"User-Agent": self._agent, "Connection": "close"}
        self._is_cut_off = False
        try:
            with self._connected() as connection:
                is_connected = True
                connection.request(method, target, body, {**headers, **own})
                answer = _read(connection.getresponse(), max_bytes)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: the socket was closed meanwhile
            words = f"{endpoint.shown}: {_describe(error, endpoint.timeout_s)}"
            raise CallFailed(words, may_have_arrived=is_connected) from error
        if self._is_cut_off:  # the library takes headers that end there for whole ones
            raise CallFailed(
                f"{endpoint.shown}: {_describe(TimeoutError(), endpoint.timeout_s)}", may_have_arrived=True
            )
        return answer

    def abort(self) -> None:
        """End the call that is under way, if any: it has failed."""
        self._is_cut_off = True
        sock = self._socket
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which another thread may be using

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """Yield a connection, to be used for `timeout_s` at most: a timeout of the socket is one for each byte."""
        endpoint = self._endpoint
        connection = _make_connection(endpoint)
        deadline = threading.Timer(endpoint.timeout_s, self.abort)
        deadline.daemon = True
        try:
            connection.connect()
            self._socket = connection.sock
            if not endpoint.allows(connection.sock.getpeername()[0]):
                raise CallFailed(f"{endpoint.shown}: {endpoint.not_encrypted}", may_have_arrived=False)
            deadline.start()
            yield connection
        finally:
            deadline.cancel()
            self._socket = None
            connection.close()


def _read(response: http.client.HTTPResponse, max_bytes: int) -> Answer:
    body = response.read(max_bytes + 1) if max_bytes else b""
    if max_bytes and len(body) <= max_bytes and response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def _make_connection(endpoint: SignedEndpoint) -> http.client.HTTPConnection:
    if endpoint.scheme == "http":
        return http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=endpoint.timeout_s)
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=endpoint.timeout_s, context=context)


def _describe(error: Exception, timeout_s: float) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "not asked: a key, or a user's id, has letters that a header of HTTP cannot have"
    if isinstance(error, TimeoutError | http.client.RemoteDisconnected | http.client.IncompleteRead | ValueError):
        return f"no answer within {timeout_s:g} s, or it hung up"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted ({error.verify_message})"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"its answer is no HTTP ({type(error).__name__})"
