"""A TCP proxy whose links are long: what is sent arrives a while later, and nothing waits for what was sent before."""

from __future__ import annotations

import asyncio
import contextlib

from tests.faults.proxy import READ_BYTES, TcpProxy


class LateProxy(TcpProxy):
    """As `TcpProxy`, but `delay` is a length of the way and not a time that each packet keeps the next waiting."""

    async def _pump(
        self, connection: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.ensure_future(self._arrive(on_the_way, writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(READ_BYTES):
                on_the_way.put_nowait((self._loop.time() + self._delay_s, data))
        on_the_way.put_nowait((0.0, b""))
        await arriving
        writer.close()

    async def _arrive(self, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                due_s, data = await on_the_way.get()
                if not data:
                    return
                await asyncio.sleep(due_s - self._loop.time())
                writer.write(data)
                await writer.drain()
