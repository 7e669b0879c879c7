"""Bodies of requests: streamed into a file block by block, never held in memory, and never waited for for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vps_bridge.http.messages import HttpProblem
from vps_bridge.intake.upload import Upload, check_size

BLOCK_BYTES = 2**20
IDLE_S = 30.0  # a client that sends nothing for so long is gone or stuck
FORM_ALLOWANCE_BYTES = 65_536  # what a form has around its file
MAX_FIELD_BYTES = 1_024
_FILE_FIELD, _COUNT_FIELD = "file", "num_speakers"


async def read_small(request: Request, max_bytes: int) -> bytes:
    """Return a body of at most `max_bytes`. Raises `Refusal` where it is larger."""
    check_declared(request, max_bytes)
    body = bytearray()
    async for data in _steadily(request.stream()):
        body += data
        check_size(len(body), max_bytes)
    return bytes(body)


async def pour(request: Request, upload: Upload) -> None:
    """Stream a raw body into a file. Raises `Refusal` where it grows too large, `OSError` where the disk refuses."""
    block = bytearray()
    async for data in _steadily(request.stream()):
        block += data
        if len(block) >= BLOCK_BYTES:
            block = await _write(upload, block)
    await _write(upload, block)
    await asyncio.to_thread(upload.finish)


async def pour_form(request: Request, upload: Upload) -> str | None:
    """Stream the part `file` of a form into a file and return the field `num_speakers` as it was sent.

    Raises `HttpProblem` where it is no such form, `Refusal` and `OSError` as `pour` does.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        msg = "send multipart/form-data with the audio as `file`: curl -F file=@call.wav"
        raise HttpProblem(422, "payload.malformed", msg)
    form = _Form(boundary)
    try:
        async for data in _steadily(request.stream()):
            form.parser.write(data)
            if len(form.block) >= BLOCK_BYTES:
                form.block = await _write(upload, form.block)
        form.parser.finalize()
    except FormParserError as error:
        raise HttpProblem(400, "payload.malformed", "the form does not parse: send it again as multipart") from error
    if form.files != 1 or not form.is_complete:
        msg = f"the form has {form.files} parts named `file`: send one, whole"
        raise HttpProblem(422, "payload.malformed", msg)
    await _write(upload, form.block)
    await asyncio.to_thread(upload.finish)
    return form.count.decode("utf-8", "replace").strip() or None


class _Form:
    """What the parser of a form found so far; parts nobody asked for are passed over."""

    def __init__(self, boundary: bytes) -> None:
        self.block, self.count = bytearray(), bytearray()
        self.files, self.is_complete = 0, False
        self._name = ""
        self._header, self._value = bytearray(), bytearray()
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take_data,
                "on_end": self._end,
            },
        )

    def _begin_part(self) -> None:
        self._name = ""

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        self.files += self._name == _FILE_FIELD

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == _FILE_FIELD and self.files == 1:
            self.block += data[start:end]
        elif self._name == _COUNT_FIELD and len(self.count) <= MAX_FIELD_BYTES:
            self.count += data[start:end]

    def _end(self) -> None:
        self.is_complete = True


def check_declared(request: Request, max_bytes: int) -> int | None:
    """Return the length a request declares, if it does. Raises `Refusal` where that is more than is accepted.

    Not a byte of the body is read then.
    """
    declared = request.headers.get("content-length", "")
    if not (declared.isascii() and declared.isdigit()):
        return None
    check_size(int(declared), max_bytes)
    return int(declared)


async def _write(upload: Upload, block: bytearray) -> bytearray:
    """Write a block where a slow disk holds up nobody else; return an empty one."""
    if block:
        await asyncio.to_thread(upload.write, bytes(block))
    return bytearray()


async def _steadily(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass a body on, and break off where nothing comes."""
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                data = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            msg = f"nothing came for {IDLE_S:.0f} s: send it again"
            raise HttpProblem(408, "payload.incomplete", msg) from None
        yield data
