"""Connections of the HTTP server: how many there may be, and how long one may take to ask for something."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.logs import MESSAGE_FROM

_LOG = structlog.get_logger(__name__)
MAX_CONNECTIONS = 256  # each costs a file of the process, which audio and ledger need too
REQUEST_S = 10.0  # from its first moment, or from its last answer, to the end of a request's headers
FOREIGN = {b"\x16": "TLS", b"\x10": "MQTT"}  # by the first byte of a ClientHello, and of a CONNECT
FOREIGN_REMEDIES = {
    "TLS": "use http://, or set a proxy with a certificate before it",
    "MQTT": "OMI_BROKER_URL is the address of the MQTT broker, not of the bridge's HTTP door",
}
LINGER_S = 2.0  # how long a client may go on sending a body that was answered before its end


class CappedProtocol(H11Protocol):
    """uvicorn's own protocol with two limits that it has no setting for.

    Its `limit_concurrency` answers requests with 503 and lets connections in that ask for nothing; its keep-alive time
    ends with the first byte of a request. One connection too many ends the one that has asked for nothing for longest;
    where all ask for something, one that does not read its answers, or asks for more before it has them.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as uvicorn calls it
        """Wait for the first request."""
        super().__init__(*arguments, **options)
        self.waiting_since_s = time.monotonic()
        self._deadline: asyncio.TimerHandle | None = None
        self._drops_body, self._is_first = False, True

    @property
    def is_asking(self) -> bool:
        """Whether a request has come whose answer has not ended."""
        return not getattr(self.cycle, "response_complete", True)  # uvicorn has none before the first request

    @property
    def is_greedy(self) -> bool:
        """Whether its answers wait for it to read them, or its next request for the answer to the one before."""
        return self.flow.write_paused or (self.conn.their_state is h11.DONE and bool(self.conn.trailing_data[0]))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Take the connection, or end it at once where all others wait for an answer and for nothing else."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            others = [one for one in self.connections if isinstance(one, CappedProtocol) and one is not self]
            spare = [one for one in others if not one.is_asking] or [one for one in others if one.is_greedy]
            min(spare, key=lambda one: one.waiting_since_s, default=self).end()
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a request whose headers have not ended give it no more time."""
        if self._is_first:
            self._is_first = False
            if (protocol := FOREIGN.get(data[:1])) is not None:
                self._turn_away(protocol)
                return
        super().data_received(data)
        if self.is_asking:
            self._stop_clock()
        elif self._deadline is None or (self._drops_body and self.conn.their_state is not h11.SEND_BODY):
            self._expect_request()

    def _turn_away(self, protocol: str) -> None:
        """Say to the peer and in the log that it speaks another protocol than this port."""
        host, port = self.client or ("?", 0)
        MESSAGE_FROM.set(host)  # of the context of this connection: nobody fills the log
        remedy = FOREIGN_REMEDIES[protocol]
        _LOG.warning("wrong_port", speaks=protocol, peer=f"{host}:{port}", remedy=remedy)
        self.send_400_response(f"This port speaks HTTP, without TLS. You speak {protocol}: {remedy}")

    def on_response_complete(self) -> None:
        """Wait for the next request; where the body of this one was answered before its end, first for that."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY:
            self._drop_body()
        elif not self.is_asking:
            self._expect_request()

    def _drop_body(self) -> None:
        """Let the client go on sending for a moment: were it cut off while it sends, it would not read its answer."""
        self._stop_clock()
        self._drops_body = True
        self._deadline = self.loop.call_later(LINGER_S, self.end)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timer."""
        self._stop_clock()
        super().connection_lost(exc)

    def end(self) -> None:
        """End the connection without a word, and count it no more."""
        self._stop_clock()
        self.connections.discard(self)
        self.transport.abort()

    def _expect_request(self) -> None:
        self._stop_clock()
        self._drops_body = False
        self.waiting_since_s = time.monotonic()
        self._deadline = self.loop.call_later(REQUEST_S, self.end)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
