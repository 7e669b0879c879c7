"""Messages to bytes and back. Whatever the bytes, the decoder raises its own errors and stays small.

Decoding can cost far more memory than the bytes suggest: 20 MB of empty maps become 1.4 GB of Python
dictionaries. So the number of objects, their nesting and their sizes are counted on the raw bytes first.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import msgpack
from pydantic import ValidationError
from pydantic_core import from_json

from schemas.errors import MessageMalformed, MessageTooLarge, SchemaUnsupported
from schemas.record import Message

MAX_OBJECTS = 350_000  # 20,000 turns twice over; at ~100 bytes each below 64 MiB in memory
MAX_MAPS = 60_000  # a map costs ten times a number
MAX_DEPTH = 12
MAX_STRING_BYTES = 100_000

M = TypeVar("M", bound=Message)

# First byte -> (bytes of the length field, bytes of payload per unit, children per unit); see the msgpack spec.
_FIXED_BYTES = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED_BYTES |= {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_STRINGS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_BINARIES = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}
_ARRAYS = {0xDC: ">H", 0xDD: ">I"}
_MAPS = {0xDE: ">H", 0xDF: ">I"}


def encode(message: Message) -> bytes:
    """Return the bytes of a message: msgpack or JSON, as its class says.

    Raises `MessageTooLarge` where a broker or the reader would refuse it: better here than over there.
    """
    if message.ENCODING == "msgpack":
        data = msgpack.packb(message.model_dump(by_alias=True, exclude_none=True))
    else:
        data = message.model_dump_json(by_alias=True, exclude_none=True).encode()
    if len(data) > message.MAX_ENCODED_BYTES:
        msg = f"{message.SCHEMA} of {len(data)} bytes passes its limit of {message.MAX_ENCODED_BYTES}"
        raise MessageTooLarge(msg)
    return bytes(data)


def decode(kind: type[M], data: bytes) -> M:
    """Return the message of `kind` that `data` holds.

    Raises `MessageTooLarge`, `MessageMalformed` or `SchemaUnsupported`, and nothing else.
    """
    if len(data) > kind.MAX_ENCODED_BYTES:
        msg = f"{kind.SCHEMA} of {len(data)} bytes passes its limit of {kind.MAX_ENCODED_BYTES}"
        raise MessageTooLarge(msg)
    fields = _unpack(data) if kind.ENCODING == "msgpack" else _parse_json(data)
    if not isinstance(fields, dict):
        msg = f"{kind.SCHEMA}: the payload is not a map"
        raise MessageMalformed(msg)
    _check_schema(kind, fields)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise MessageMalformed(_explain(kind, error)) from None
    except RecursionError:
        msg = f"{kind.SCHEMA}: nested too deeply"
        raise MessageTooLarge(msg) from None


def _explain(kind: type[Message], error: ValidationError) -> str:
    """Name the wrong fields but never their values: they may be audio, text or names."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    places = [f"{'.'.join(str(part)[:40] for part in item['loc']) or 'message'}: {item['msg']}" for item in details[:5]]
    return f"{kind.SCHEMA}: " + "; ".join(places)


def _check_schema(kind: type[Message], fields: dict[Any, Any]) -> None:
    schema, version = fields.get("schema"), fields.get("version")
    if schema != kind.SCHEMA:
        named = schema[:60] if isinstance(schema, str) else "none"
        msg = f"this topic carries {kind.SCHEMA}, the payload names {named!r}"
        raise SchemaUnsupported(msg)
    major, _, minor = version.partition(".") if isinstance(version, str) else ("", "", "")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        msg = f"{kind.SCHEMA}: version must read major.minor; supported: {kind.MAJOR}.x"
        raise SchemaUnsupported(msg)
    if major != str(kind.MAJOR):
        msg = f"{kind.SCHEMA} version {major[:8]}.x is not spoken here; supported: {kind.MAJOR}.x"
        raise SchemaUnsupported(msg)


def _parse_json(data: bytes) -> Any:  # noqa: ANN401 - JSON is any shape until validated
    # Commas and brackets inside strings count as well: too strict by a little, and never too lax.
    marks = data.count(b",") + data.count(b"[") + data.count(b"{")
    if marks > MAX_OBJECTS or data.count(b"{") + data.count(b"[") > MAX_MAPS:
        msg = f"JSON with {marks} elements passes the limit of {MAX_OBJECTS}"
        raise MessageTooLarge(msg)
    try:
        return from_json(data, allow_inf_nan=False, cache_strings="none")
    except (ValueError, RecursionError) as error:
        msg = f"not JSON: {str(error)[:200]}"
        raise MessageMalformed(msg) from None


def _unpack(data: bytes) -> Any:  # noqa: ANN401 - msgpack is any shape until validated
    _measure(data)
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=MAX_STRING_BYTES,
            max_bin_len=len(data),
            max_array_len=MAX_OBJECTS,
            max_map_len=MAX_MAPS,
            max_ext_len=0,
        )
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        msg = f"not msgpack: {type(error).__name__}"
        raise MessageMalformed(msg) from None


def _measure(data: bytes) -> None:
    """Walk over the raw msgpack and raise where objects, maps or nesting pass a limit; nothing is built."""
    position, objects, maps = 0, 0, 0
    open_children = [1]
    while open_children:
        if open_children[-1] == 0:
            open_children.pop()
            continue
        open_children[-1] -= 1
        objects += 1
        position, children, is_map = _step(data, position)
        maps += is_map
        if children:
            open_children.append(children)
        if objects + sum(open_children) > MAX_OBJECTS or maps > MAX_MAPS or len(open_children) > MAX_DEPTH:
            msg = f"msgpack passes the limits: {MAX_OBJECTS} objects, {MAX_MAPS} maps, {MAX_DEPTH} levels"
            raise MessageTooLarge(msg)
    if position != len(data):
        msg = "bytes after the end of the message"
        raise MessageMalformed(msg)


def _step(data: bytes, position: int) -> tuple[int, int, bool]:
    """Pass over one object's head and scalar bytes; return (next position, children, whether it is a map)."""
    try:
        head = data[position]
        position += 1
        size, children, is_map = 0, 0, False
        if head <= 0x7F or head >= 0xE0:
            pass
        elif head <= 0x8F:
            children, is_map = 2 * (head & 0x0F), True
        elif head <= 0x9F:
            children = head & 0x0F
        elif head <= 0xBF:
            size = head & 0x1F
        elif head in _FIXED_BYTES:
            size = _FIXED_BYTES[head]
            _check_float(head, data, position)
        elif head in _STRINGS or head in _BINARIES:
            code = _STRINGS.get(head) or _BINARIES[head]
            (size,) = struct.unpack_from(code, data, position)
            position += struct.calcsize(code)
        elif head in _ARRAYS:
            (children,) = struct.unpack_from(_ARRAYS[head], data, position)
            position += struct.calcsize(_ARRAYS[head])
        elif head in _MAPS:
            (pairs,) = struct.unpack_from(_MAPS[head], data, position)
            position += struct.calcsize(_MAPS[head])
            children, is_map = 2 * pairs, True
        else:
            msg = f"msgpack type 0x{head:02x} is not allowed here (extension types never are)"
            raise MessageMalformed(msg)
    except (IndexError, struct.error):
        msg = "the message ends in the middle"
        raise MessageMalformed(msg) from None
    if position + size > len(data):
        msg = "the message ends in the middle"
        raise MessageMalformed(msg)
    return position + size, children, is_map


def _check_float(head: int, data: bytes, position: int) -> None:
    code = {0xCA: ">f", 0xCB: ">d"}.get(head)
    if code is None:
        return
    (number,) = struct.unpack_from(code, data, position)
    if number != number or number in (float("inf"), float("-inf")):  # noqa: PLR0124 - the test for NaN
        msg = "NaN and infinity are not numbers here"
        raise MessageMalformed(msg)
