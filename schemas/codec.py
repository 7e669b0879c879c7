"""Encode and decode messages. On any bytes the decoder raises only its own errors and uses limited memory.

Decoded messages can take far more memory than their bytes: 20 MB of empty maps become 1.4 GB of Python
dictionaries. So the number of objects, their nesting and their sizes are first counted in the raw bytes.
"""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import Any, TypeVar

import msgpack
from pydantic import ValidationError
from pydantic_core import from_json

from schemas.errors import MessageMalformed, MessageTooLarge, SchemaError, SchemaUnsupported
from schemas.record import Id, Message, Record, describe_wrong, is_id
from schemas.text import KeyRepeated, decode_text, refuse_repeated

MAX_OBJECTS = 350_000  # two lists of 20,000 turns fit; at ~100 bytes each, below 64 MiB of memory
MAX_MAPS = 60_000  # a map takes ten times the memory of a number
MAX_DEPTH = 12
MAX_STRING_BYTES = 100_000

M = TypeVar("M", bound=Message)

_SCHEMA_NAME = re.compile(r"[a-z][a-z-]{0,39}")
_NOT_FINITE = "NaN and infinity are not numbers here"
_WHITE_SPACE = b" \t\n\r"  # what JSON allows between a key and its colon

# What the first byte of a msgpack object means (see the specification of msgpack): the size of the whole object in
# bytes, or 0 where the first byte alone does not give it.
_FIXED_SIZES = dict.fromkeys([*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3], 1)  # small ints, nil, booleans
_FIXED_SIZES |= {first + n: 1 + 2**n for first in (0xCC, 0xD0) for n in range(4)}  # ints of 1, 2, 4, 8 bytes
_FIXED_SIZES |= {head: 1 + (head & 0x1F) for head in range(0xA0, 0xC0)}
_FIXED = bytes(_FIXED_SIZES.get(head, 0) for head in range(0x100))
# Width in bytes of the length field after the first byte.
_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bin, str: the length in bytes
_COUNT_BYTES = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # array, map: the number of objects or pairs
_FLOAT32, _FLOAT64 = 0xCA, 0xCB


def encode(message: Message) -> bytes:
    """Return the bytes of a message: msgpack or JSON, as its class says.

    Raises `MessageTooLarge` where a broker or the receiver would refuse it.
    """
    if message.ENCODING == "msgpack":
        data = bytes(msgpack.packb(message.model_dump(by_alias=True, exclude_none=True)))
    else:
        data = message.model_dump_json(by_alias=True, exclude_none=True).encode()
    _measure(type(message), data)
    return data


def decode(kind: type[M], data: bytes) -> M:
    """Return the message of `kind` that `data` holds.

    Raises `MessageTooLarge`, `MessageMalformed` or `SchemaUnsupported`, and nothing else.
    """
    fields = _parse(kind, data)
    if not isinstance(fields, dict):
        msg = f"{kind.SCHEMA}: the payload is not a map"
        raise MessageMalformed(msg)
    _check_schema(kind, fields)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise MessageMalformed(_explain(kind, error)) from None


def _parse(kind: type[Message], data: bytes) -> Any:  # noqa: ANN401 - any shape until validated
    pairs = _measure(kind, data)
    try:
        return _unpack(data, pairs) if kind.ENCODING == "msgpack" else _parse_json(data)
    except KeyRepeated as error:
        name = f"the key {error.key!r}" if error.key in _field_names(Record) else "a key that is not known here"
        msg = f"{kind.SCHEMA}: {name} stands twice in one object: keep the one that is meant"
        raise MessageMalformed(msg) from None


def _measure(kind: type[Message], data: bytes) -> int:
    """Raise where raw bytes are above a limit of `kind`, without decoding them; return the pairs in maps of msgpack."""
    if len(data) > kind.MAX_ENCODED_BYTES:
        msg = f"{kind.SCHEMA} of {len(data)} bytes passes its limit of {kind.MAX_ENCODED_BYTES}: split it"
        raise MessageTooLarge(msg)
    if kind.ENCODING == "msgpack":
        return _measure_msgpack(data)
    _measure_json(data)
    return 0


class Envelope(Record):
    """The ids in a refused message, by which its sender learns which message it was."""

    job_id: Id | None = None
    lease_id: Id | None = None
    chunk_id: Id | None = None
    event_id: Id | None = None


def read_envelope(kind: type[Message], data: bytes) -> Envelope:
    """Return the ids of a message that `decode` refused; none where they cannot be read either."""
    try:
        fields = _parse(kind, data)
    except SchemaError:
        return Envelope()
    ids = {name: fields.get(name) for name in Envelope.model_fields} if isinstance(fields, dict) else {}
    return Envelope(**{name: value for name, value in ids.items() if isinstance(value, str) and is_id(value)})


def _explain(kind: type[Message], error: ValidationError) -> str:
    """Name the wrong fields but never their values, which may be audio, text or names."""
    details = error.errors(include_url=False, include_input=False)
    known = _field_names(Record)
    places = [
        ".".join(str(part) if isinstance(part, int) or part in known else "*" for part in item["loc"])
        for item in details[:5]
    ]
    reasons = [f"{place or 'message'}: {describe_wrong(item)}" for place, item in zip(places, details, strict=False)]
    return f"{kind.SCHEMA}: " + "; ".join(reasons)


def _field_names(record: type[Record]) -> set[str]:
    """Return the field names of all records; any other name in an error is a key that the sender chose."""
    names = {field.alias or name for name, field in record.model_fields.items()}
    return names.union(*(_field_names(child) for child in record.__subclasses__()))


def _check_schema(kind: type[Message], fields: dict[Any, Any]) -> None:
    schema, version = fields.get("schema"), fields.get("version")
    if schema != kind.SCHEMA:
        named = schema if isinstance(schema, str) and _SCHEMA_NAME.fullmatch(schema) else "none"
        msg = f"this topic carries {kind.SCHEMA}, the payload names {named}: send `schema` and `version`"
        raise SchemaUnsupported(msg)
    major, _, minor = version.partition(".") if isinstance(version, str) else ("", "", "")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        msg = f"{kind.SCHEMA}: version must read major.minor; supported: {kind.MAJOR}.x"
        raise SchemaUnsupported(msg)
    if major != str(kind.MAJOR):
        msg = f"{kind.SCHEMA} version {major[:8]}.x is not spoken here; supported: {kind.MAJOR}.x"
        raise SchemaUnsupported(msg)


def _measure_json(data: bytes) -> None:
    # Brackets and commas inside strings are counted too: the limit is at most stricter than stated.
    containers = data.count(b"{") + data.count(b"[")
    if containers + data.count(b",") > MAX_OBJECTS or containers > MAX_MAPS:
        msg = f"JSON passes the limits: {MAX_OBJECTS} elements, {MAX_MAPS} objects and arrays"
        raise MessageTooLarge(msg)


def _parse_json(data: bytes) -> Any:  # noqa: ANN401 - JSON is any shape until validated
    try:
        text = decode_text(data)
        parsed = from_json(text, allow_inf_nan=False, cache_strings="none")
    except UnicodeDecodeError:
        msg = "not JSON in UTF-8: send it so, and not compressed"
        raise MessageMalformed(msg) from None
    except ValueError as error:
        msg = f"not JSON: {str(error)[:200]}"
        raise MessageMalformed(msg) from None
    if _may_repeat_a_key(text, _count_keys(parsed)):
        json.loads(text, object_pairs_hook=refuse_repeated, parse_int=str)
    return parsed


def _may_repeat_a_key(text: str, keys: int) -> bool:
    """Return False where surely no object has a key twice: there are no more colons behind keys than keys are left.

    `from_json` keeps the last value of such a key without a word, and Python's own parser, which can tell, takes as
    long again. Colons in times and in text have no quotation mark before them; a few that do cost that time.
    """
    if text.count(":") == keys:
        return False
    return text.encode().translate(None, _WHITE_SPACE).count(b'":') != keys


def _count_keys(parsed: Any) -> int:  # noqa: ANN401 - JSON is any shape until validated
    """Return how many keys all objects have together. Raises where a number is infinite, as 1e999 is read."""
    keys, found = 0, [parsed]
    for item in found:  # which grows
        kind = type(item)
        if kind is dict:
            keys += len(item)
            found += item.values()
        elif kind is list:
            found += item
        elif kind is float and math.isinf(item):
            raise MessageMalformed(_NOT_FINITE)
    return keys


def _unpack(data: bytes, pairs: int) -> Any:  # noqa: ANN401 - msgpack is any shape until validated
    keys = 0

    def count_keys(fields: dict[str, Any]) -> dict[str, Any]:
        nonlocal keys
        keys += len(fields)
        return fields

    unpack = partial(msgpack.unpackb, data, raw=False, strict_map_key=True, max_str_len=MAX_STRING_BYTES)
    try:
        fields = unpack(object_hook=count_keys)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        is_text = isinstance(error, UnicodeDecodeError) or "max_str_len" in str(error)  # as packers before 2013 wrote
        what = "a str holds what is no text: pack bytes as bin (`use_bin_type`)" if is_text else type(error).__name__
        msg = f"not msgpack: {what}"
        raise MessageMalformed(msg) from None
    if keys != pairs:
        unpack(object_pairs_hook=refuse_repeated)
    return fields


def _measure_msgpack(data: bytes) -> int:
    """Walk over the raw msgpack and raise where objects, maps or nesting are above a limit, without decoding.

    Returns how many pairs of a key and a value its maps have together.
    """
    position, objects, maps, in_maps = 0, 1, 0, 0
    open_children = [1]  # for each level, how many objects are not read yet
    try:
        while open_children:
            if open_children[-1] == 0:
                open_children.pop()
                continue
            open_children[-1] -= 1
            size = _FIXED[data[position]]
            if size:
                position += size
                continue
            position, children, is_map = _pass_over(data, position)
            if is_map:
                maps += 1
                in_maps += children
            objects += children  # counted by the announced number, so that a huge one is refused at once
            open_children.append(children)
            if objects > MAX_OBJECTS or maps > MAX_MAPS or len(open_children) > MAX_DEPTH:
                msg = f"msgpack passes the limits: {MAX_OBJECTS} objects, {MAX_MAPS} maps, {MAX_DEPTH} levels"
                raise MessageTooLarge(msg)
    except IndexError:
        position = len(data) + 1
    if position > len(data):
        msg = "the message ends in the middle"
        raise MessageMalformed(msg)
    if position < len(data):
        msg = "bytes after the end of the message"
        raise MessageMalformed(msg)
    return in_maps // 2


def _pass_over(data: bytes, position: int) -> tuple[int, int, bool]:
    """Skip one object, or the head of an array or map; return (next position, children, whether it is a map)."""
    head = data[position]
    position += 1
    if head in _LENGTH_BYTES:
        after = position + _LENGTH_BYTES[head]
        return after + int.from_bytes(data[position:after]), 0, False
    if head in _COUNT_BYTES:
        after = position + _COUNT_BYTES[head]
        count, is_map = int.from_bytes(data[position:after]), head >= 0xDE
        return after, 2 * count if is_map else count, is_map
    if 0x80 <= head <= 0x9F:
        is_map = head <= 0x8F
        return position, (head & 0x0F) * (2 if is_map else 1), is_map
    if head in (_FLOAT32, _FLOAT64):
        width = 4 if head == _FLOAT32 else 8
        exponent = int.from_bytes(data[position : position + 2]) & (0x7F80 if width == 4 else 0x7FF0)
        if exponent == (0x7F80 if width == 4 else 0x7FF0):  # all ones: NaN or infinity (IEEE 754)
            raise MessageMalformed(_NOT_FINITE)
        return position + width, 0, False
    msg = f"msgpack type 0x{head:02x} is not allowed here (extension types never are)"
    raise MessageMalformed(msg)
