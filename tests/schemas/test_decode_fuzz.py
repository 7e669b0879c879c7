"""On any bytes the decoder raises nothing but its own errors."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.codec import decode, encode, read_envelope
from schemas.errors import SchemaError
from schemas.record import Message
from tests.schemas.payload_strategies import JSON_KINDS, KINDS, MSGPACK_KINDS, payloads, raw

pytestmark = pytest.mark.long

DRAWS = settings(
    max_examples=25 if settings.get_current_profile_name() == "ci" else 300,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.SCHEMA)
by_msgpack_kind = pytest.mark.parametrize("kind", MSGPACK_KINDS, ids=lambda kind: kind.SCHEMA)
by_json_kind = pytest.mark.parametrize("kind", JSON_KINDS, ids=lambda kind: kind.SCHEMA)

TEXTS = st.text(st.characters(), max_size=20)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats()
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | st.binary(max_size=20)
EXTENSIONS = st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
KEYS = st.text(max_size=5) | st.binary(max_size=5) | st.integers(0, 9) | st.none() | st.floats()
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | EXTENSIONS,
    lambda children: st.lists(children, max_size=5) | st.dictionaries(KEYS, children, max_size=5),
    max_leaves=20,
)
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**500), 10**500)
    | st.floats()
    | TEXTS
    | st.text("\ud800\udfff,[{\\\"'", max_size=5),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(max_size=5), children, max_size=5),
    max_leaves=20,
)


def survives(kind: type[Message], data: bytes) -> None:
    """Decode: either a message that can be encoded again, or one of our own errors."""
    read_envelope(kind, data)
    try:
        message = decode(kind, data)
    except SchemaError:
        return
    assert decode(kind, encode(message)) == message


@by_kind
@DRAWS
@given(data=st.binary(max_size=300))
@example(data=b"")
@example(data=b"\x80")
@example(data=b"{}")
@example(data=b"\xc1")
@example(data=b"\xdf\xff\xff\xff\xff")
@example(data=b"\x81" * 5_000)
@example(data=b"\x91" * 100_000 + b"\xc0")
@example(data=b"[" * 100_000)
@example(data=b'{"a":' * 100_000)
@example(data=b"1e999")
@example(data=b"-" + b"9" * 100_000)
@example(data=b'"\\ud800"')
@example(data=b"\xef\xbb\xbf{}")
@example(data=b"\xff\xfe{\0}\0")
def test_random_bytes(kind: type[Message], data: bytes) -> None:
    survives(kind, data)


@by_kind
@DRAWS
@given(data=st.data())
def test_valid_messages_with_damaged_bytes(kind: type[Message], data: st.DataObject) -> None:
    message = bytearray(raw(kind, data.draw(payloads(kind))))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(message)))
        end = data.draw(st.integers(start, min(len(message), start + 10)))
        message[start:end] = data.draw(st.binary(max_size=10))
    survives(kind, bytes(message))


@by_msgpack_kind
@DRAWS
@given(data=st.data())
def test_msgpack_fields_that_hold_anything(kind: type[Message], data: st.DataObject) -> None:
    payload = replaced(data, data.draw(payloads(kind)), VALUES)
    survives(kind, msgpack.packb(payload, unicode_errors="surrogatepass"))


@by_json_kind
@DRAWS
@given(data=st.data())
def test_json_fields_that_hold_anything(kind: type[Message], data: st.DataObject) -> None:
    payload = replaced(data, data.draw(payloads(kind)), JSON_VALUES)
    ascii_only = data.draw(st.booleans())
    survives(kind, json.dumps(payload, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@by_msgpack_kind
@DRAWS
@given(value=VALUES)
def test_any_msgpack(kind: type[Message], value: Any) -> None:
    survives(kind, msgpack.packb(value, unicode_errors="surrogatepass"))


@by_json_kind
@DRAWS
@given(value=JSON_VALUES)
def test_any_json(kind: type[Message], value: Any) -> None:
    survives(kind, json.dumps(value).encode())


def replaced(data: st.DataObject, payload: Any, values: st.SearchStrategy[Any]) -> Any:
    """Return the payload with one value somewhere in it replaced by another."""
    keys = (
        list(payload) if isinstance(payload, dict) else list(range(len(payload))) if isinstance(payload, list) else []
    )
    if not keys or data.draw(st.integers(0, 4)) == 0:
        return data.draw(values)
    key = data.draw(st.sampled_from(keys))
    copy = payload.copy()
    copy[key] = replaced(data, payload[key], values)
    return copy
