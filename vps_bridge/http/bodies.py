"""Reading request bodies: large ones block by block into a file, all with a limit on size and a least speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vps_bridge.http.messages import HttpProblem
from vps_bridge.intake.upload import Upload, check_size

BLOCK_BYTES = 2**20
RATE_WINDOW_S = 10.0  # a body that brings less than its least speed allows within this long is ended
LEAST_BYTES_PER_S = 1_000
BUSY_BYTES_PER_S = 16_000  # the least speed while others wait for their turn
FORM_ALLOWANCE_BYTES = 65_536  # for a form's boundaries and headers, beside its file
MAX_FIELD_BYTES = 1_024
MAX_LENGTH_DIGITS = 20
_FILE_FIELD, HINT_FIELDS = "file", ("num_speakers", "min_speakers", "max_speakers")


def is_encoded(request: Request) -> bool:
    """Whether a body says that it is compressed, or otherwise not what it stands for: nobody here would undo that."""
    named = ",".join(request.headers.getlist("content-encoding")).lower()
    return any(each.strip() not in ("", "identity") for each in named.split(","))


async def read_small(request: Request, max_bytes: int) -> bytes:
    """Return a body of at most `max_bytes`. Raises `Refusal` where it is larger."""
    check_declared(request, max_bytes)
    body = bytearray()
    async for data in _read_in_time(request.stream(), lambda: LEAST_BYTES_PER_S):
        body += data
        check_size(len(body), max_bytes)
    return bytes(body)


async def save_body(request: Request, upload: Upload, least_bytes_per_s: Callable[[], int]) -> None:
    """Write a raw body into a file. Raises `Refusal` where it grows too large, `OSError` where the disk refuses.

    `least_bytes_per_s` returns how fast it has to come at this moment.
    """
    block = bytearray()
    async for data in _read_in_time(request.stream(), least_bytes_per_s):
        block += data
        if len(block) >= BLOCK_BYTES:
            block = await _write(upload, block)
    await _write(upload, block)
    await asyncio.to_thread(upload.finish)


async def save_form(request: Request, upload: Upload, least_bytes_per_s: Callable[[], int]) -> dict[str, str]:
    """Write the part `file` of a form into a file and return those of `HINT_FIELDS` that were sent, as they were sent.

    Raises `HttpProblem` where it is no such form, `Refusal` and `OSError` as `save_body` does. Whatever is not of that
    file, parts that nobody asked for included, may be `FORM_ALLOWANCE_BYTES` long.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        msg = "send multipart/form-data with the audio as `file`: curl -F file=@call.wav"
        raise HttpProblem(422, "payload.malformed", msg)
    if is_encoded(request):
        raise HttpProblem(422, "payload.malformed", "send the form as it is, without Content-Encoding")
    form, total_bytes = _Form(boundary), 0
    try:
        async for data in _read_in_time(request.stream(), least_bytes_per_s):
            form.parser.write(data)
            total_bytes += len(data)
            if total_bytes - form.file_bytes > FORM_ALLOWANCE_BYTES and not form.files:
                raise HttpProblem(422, "payload.malformed", "no part is named `file`: curl -F file=@call.wav")
            if form.files > 1:
                raise HttpProblem(
                    422, "payload.malformed", "several parts are named `file`: send one recording at a time"
                )
            check_size(total_bytes - form.file_bytes, FORM_ALLOWANCE_BYTES)
            if len(form.block) >= BLOCK_BYTES:
                form.block = await _write(upload, form.block)
        form.parser.finalize()
    except FormParserError as error:
        raise HttpProblem(400, "payload.malformed", "the form does not parse: send it again as multipart") from error
    repeated = [name for name in HINT_FIELDS if form.names.count(name) > 1]
    if form.files != 1 or repeated or not form.is_complete:
        named = f" and several named {', '.join(repeated)}" if repeated else ""
        msg = f"the form has {form.files} parts named `file`{named}: send one of each, whole"
        raise HttpProblem(422, "payload.malformed", msg)
    await _write(upload, form.block)
    await asyncio.to_thread(upload.finish)
    sent = {name: value.decode("utf-8", "replace").strip() for name, value in form.hints.items()}
    return {name: value for name, value in sent.items() if value}


class _Form:
    """What the parser of a form has found so far. Parts of other names are ignored."""

    def __init__(self, boundary: bytes) -> None:
        self.block, self.is_complete = bytearray(), False
        self.files, self.file_bytes = 0, 0
        self.names: list[str] = []
        self.hints: dict[str, bytearray] = {}
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
        if self._name in HINT_FIELDS:
            self.names.append(self._name)
            self.hints.setdefault(self._name, bytearray())

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == _FILE_FIELD and self.files == 1:
            self.block += data[start:end]
            self.file_bytes += end - start
        elif self._name in self.hints and len(self.hints[self._name]) <= MAX_FIELD_BYTES:
            self.hints[self._name] += data[start:end]

    def _end(self) -> None:
        self.is_complete = True


def declared_bytes(request: Request) -> int | None:
    """Return the length a request declares, if it does."""
    declared = request.headers.get("content-length", "")
    # Python refuses to read numbers of thousands of digits.
    return int(declared[:MAX_LENGTH_DIGITS]) if declared.isascii() and declared.isdigit() else None


def check_declared(request: Request, max_bytes: int) -> int | None:
    """Return the length a request declares, if it does. Raises `Refusal` where that is more than `max_bytes`.

    So a body that is too large is refused before any of it is read.
    """
    declared = declared_bytes(request)
    if declared is not None:
        check_size(declared, max_bytes)
    return declared


async def _write(upload: Upload, block: bytearray) -> bytearray:
    """Write a block in another thread, so that a slow disk does not delay other requests; return an empty block."""
    if block:
        await asyncio.to_thread(upload.write, bytes(block))
    return bytearray()


async def _read_in_time(
    stream: AsyncIterator[bytes], least_bytes_per_s: Callable[[], int], window_s: float = RATE_WINDOW_S
) -> AsyncIterator[bytes]:
    """Yield a body as it arrives. Raises `HttpProblem` where too little of it came within `window_s`."""
    window_ends_s, came_bytes = time.monotonic() + window_s, 0
    reading = asyncio.ensure_future(anext(stream, None))
    try:
        while True:
            # Not `asyncio.timeout`: it would cancel the stream, which then looks as if the body had ended.
            await asyncio.wait({reading}, timeout=window_ends_s - time.monotonic())
            data = reading.result() if reading.done() else b""
            if data is None:
                return
            came_bytes += len(data)
            now_s = time.monotonic()
            if now_s >= window_ends_s:
                if came_bytes < least_bytes_per_s() * window_s:
                    msg = f"only {came_bytes} bytes came within {window_s:.0f} s: send it again, and faster"
                    raise HttpProblem(408, "payload.incomplete", msg)
                window_ends_s, came_bytes = now_s + window_s, 0
            if reading.done():
                yield data
                window_ends_s += time.monotonic() - now_s  # a slow disk is no fault of the client
                reading = asyncio.ensure_future(anext(stream, None))
    finally:
        reading.cancel()
