"""A TCP proxy that disturbs its connections: cut, frozen half-open, held, losing one direction, slow, refused.

    with TcpProxy(broker_port) as link:
        client.connect("127.0.0.1", link.port)
        link.freeze()

The proxy runs in its own thread; every method may be called from any thread and returns once it has taken effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.inbox import WAIT_S

READ_BYTES = 65_536
LARGE_READ_BYTES = 16_384


@dataclass(eq=False)
class _Connection:
    """A connection of a client and its connection to the target, with what the proxy does to them."""

    client: asyncio.StreamWriter
    target: asyncio.StreamWriter | None = None
    is_frozen: bool = False
    damages: int = 0
    swallows: set[str] = field(default_factory=set)

    def abort(self) -> None:
        """Reset both sides, so that each notices at once."""
        for writer in (self.client, self.target):
            if writer is not None:
                writer.transport.abort()


class TcpProxy:
    """Listens on a free port of loopback and forwards every connection to `target_port`."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"proxy to {target_port}", daemon=True)
        self._connections: set[_Connection] = set()
        self._flows = asyncio.Event()
        self._refuses = False
        self._delay_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(WAIT_S):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._cut_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)

    # ------------------------------------------------------------------------------------ disturbances

    def cut(self) -> None:
        """Reset every connection; new ones work."""
        self._call(self._cut_all)

    def freeze(self) -> None:
        """Make every connection half-open: nothing is forwarded any more, not even its end; new ones work.

        This is what happens when a router forgets a connection. It lasts until one side gives up, or `cut`.
        """

        def freeze() -> None:
            for connection in self._connections:
                connection.is_frozen = True

        self._call(freeze)

    def hold(self) -> None:
        """Keep all bytes, of new connections too, until `release`; then everything arrives, late."""
        self._call(self._flows.clear)

    def release(self) -> None:
        """End `hold`."""
        self._call(self._flows.set)

    def deafen(self) -> None:
        """Drop what the target sends on the present connections. Cut them afterwards, as bytes are missing."""
        self._swallow("down")

    def mute(self) -> None:
        """Drop what the client sends on the present connections. Cut them afterwards, as bytes are missing."""
        self._swallow("up")

    def damage(self, reads: int) -> None:
        """Flip a bit in each of the next large reads (16 KiB or more) from the target, such as audio for an agent."""

        def damage() -> None:
            for connection in self._connections:
                connection.damages = reads

        self._call(damage)

    @property
    def damages_left(self) -> int:
        """The number of large reads that will still be damaged."""
        return sum(connection.damages for connection in self._connections)

    def refuse(self, *, on: bool = True) -> None:
        """Close new connections at once, or stop doing so."""

        def refuse() -> None:
            self._refuses = on

        self._call(refuse)

    def delay(self, seconds: float) -> None:
        """Forward everything this much later, in both directions; 0 ends it."""

        def delay() -> None:
            self._delay_s = seconds

        self._call(delay)

    @property
    def connections(self) -> int:
        """The number of connections, frozen ones included."""
        return len(self._connections)

    # ------------------------------------------------------------------------------------ the proxy's thread

    def _swallow(self, direction: str) -> None:
        def swallow() -> None:
            for connection in self._connections:
                connection.swallows.add(direction)

        self._call(swallow)

    def _cut_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    def _call(self, work: Callable[[], None]) -> None:
        """Run `work` on the proxy's thread and wait for it."""
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(run)
        if not done.wait(WAIT_S):
            raise RuntimeError("the proxy's thread hangs")

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._flows.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        if self._refuses:
            connection.abort()
            return
        self._connections.add(connection)
        try:
            await self._flows.wait()
            target_reader, connection.target = await asyncio.open_connection("127.0.0.1", self._target_port)
            await asyncio.gather(
                self._pump(connection, reader, connection.target, "up"),
                self._pump(connection, target_reader, writer, "down"),
            )
        except (OSError, asyncio.CancelledError):
            pass  # no target, or the proxy ends: the connection of the client is closed
        finally:
            connection.abort()
            self._connections.discard(connection)

    async def _pump(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        """Forward bytes in one direction until one side ends."""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(READ_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flows.wait()
                if connection.is_frozen:
                    break
                if direction == "down" and connection.damages and len(data) >= LARGE_READ_BYTES:
                    connection.damages -= 1
                    middle = len(data) // 2
                    data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
                if direction not in connection.swallows:
                    writer.write(data)
                    await writer.drain()
        if connection.is_frozen and not reader.at_eof():
            await self._wait_end(reader)
        if not connection.is_frozen:
            writer.close()  # of a frozen connection the other side must not see the end

    async def _wait_end(self, reader: asyncio.StreamReader) -> None:
        """Drop what still arrives on a frozen connection, until its side gives up."""
        with contextlib.suppress(ConnectionError):
            while await reader.read(READ_BYTES):
                pass
