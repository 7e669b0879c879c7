"""Payloads of every message, generated from the published JSON Schemas."""

from __future__ import annotations

import json
import struct
from datetime import timedelta, timezone
from typing import Any

import msgpack
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.document import message_schema
from schemas.messages import MESSAGE_BY_SCHEMA
from schemas.record import Message, Record
from schemas.turns import VoiceSamples

KINDS = list(MESSAGE_BY_SCHEMA.values())
JSON_KINDS = [kind for kind in KINDS if kind.ENCODING == "json"]
MSGPACK_KINDS = [kind for kind in KINDS if kind.ENCODING == "msgpack"]
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MAX_ITEMS = 4


def raw(kind: type[Message], payload: dict[str, Any]) -> bytes:
    """Return the bytes that another program would send."""
    return msgpack.packb(payload) if kind.ENCODING == "msgpack" else json.dumps(payload).encode()


def payloads(kind: type[Message]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate payloads of a kind that its schema and the rules between its fields allow."""
    schema = message_schema(kind)
    return _strategy(schema, schema.get("$defs", {}), kind)


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    return payloads(kind).map(kind.model_validate)


def _records(parent: type[Record] = Record) -> dict[str, type[Record]]:
    found = {child.__name__: child for child in parent.__subclasses__()}
    for child in list(found.values()):
        found |= _records(child)
    return found


def _allowed(record: type[Record], payload: dict[str, Any]) -> bool:
    try:
        record.model_validate(payload)
    except ValidationError as error:
        if any(item["type"] != "value_error" for item in error.errors()):
            raise  # the schema allows what the code refuses
        return False
    return True


def _strategy(
    schema: dict[str, Any], defs: dict[str, Any], record: type[Record] | None = None
) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name == VoiceSamples.__name__:
            return _voice_samples()
        return _strategy(defs[name], defs, _records().get(name))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of(*(_strategy(choice, defs) for choice in schema["anyOf"]))
    if schema["type"] == "object":
        return _objects(schema, defs, record)
    if schema["type"] == "array":
        sizes = {"min_size": schema.get("minItems", 0), "max_size": min(MAX_ITEMS, schema["maxItems"])}
        return st.lists(_strategy(schema["items"], defs), **sizes)
    return _scalars(schema)


def _voice_samples() -> st.SearchStrategy[dict[str, Any]]:
    """Generate columns of equally many rows: drawn one by one they would hardly ever fit each other."""
    return st.integers(1, 4).flatmap(
        lambda count: st.fixed_dictionaries(
            {
                "count": st.just(count),
                "times_s": st.just(struct.pack("<3f", 1.0, 11.0, 7.5) * count),
                "embeddings": st.integers(1, 8).map(lambda dim: b"\x01\x3c" * (count * dim)),
            },
            optional={"every": st.integers(1, 1_000_000), "speech": st.sampled_from([b"", b"\xff\x10" * count])},
        )
    )


def _objects(schema: dict[str, Any], defs: dict[str, Any], record: type[Record] | None) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        values = _strategy(schema["additionalProperties"], defs)
        return st.dictionaries(st.text(max_size=20), values, max_size=MAX_ITEMS)
    required = set(schema.get("required", []))
    fields = {name: _strategy(field, defs) for name, field in schema["properties"].items()}
    drawn = st.fixed_dictionaries(
        {name: field for name, field in fields.items() if name in required},
        optional={name: field for name, field in fields.items() if name not in required},
    )
    assert record is not None
    return drawn.filter(lambda payload: _allowed(record, payload))


def _scalars(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    match schema:
        case {"type": "null"}:
            return st.none()
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "integer"}:
            return st.integers(schema["minimum"], schema["maximum"])
        case {"type": "number"}:
            return st.floats(schema["minimum"], schema["maximum"])
        case {"format": "date-time"}:
            return st.datetimes(timezones=OFFSETS).map(lambda moment: moment.isoformat())
        case {"format": "date"}:
            return st.dates().map(lambda day: day.isoformat())
        case {"format": "binary"}:
            return st.binary(max_size=100)
        case {"pattern": pattern}:
            return st.from_regex(pattern.removesuffix("$") + r"\Z")
        case _:
            return st.text(min_size=schema.get("minLength", 0), max_size=min(60, schema["maxLength"]))
