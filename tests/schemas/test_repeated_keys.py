"""A key twice in an object is refused wherever it stands, and nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import decode, read_envelope
from schemas.conversation import ConversationEvent
from schemas.errors import MessageMalformed
from schemas.turns import SpeakerTurns
from tests.schemas.small_messages import EVENT, RESULT

LIKE_KEYS = ":", '":', '" :', "at 10:30: yes", 'said "a": "b"', "\\:", "\n:"


def event_with(more: str) -> bytes:
    return f"{json.dumps(EVENT)[:-1]}, {more}}}".encode()


@pytest.mark.parametrize(
    ("repeated", "named"),
    [
        ('"event_id": "f"', "'event_id'"),
        ('"event_id" \t\r\n: "f"', "'event_id'"),
        ('"event_\\u0069d": "f"', "'event_id'"),
        ('"note": "\\u003a\\u003a", "event_id": "f"', "'event_id'"),
        ('"note": ": and \\" :", "event_id": "f"', "'event_id'"),
        (f'"event_id": {"9" * 4_000}', "'event_id'"),
        ('"schema": "speaker-turns"', "'schema'"),
        ('"segments": [{"id": "s", "text": "a", "text": "b"}]', "'text'"),
        ('"Grandmother": 1, "Grandmother": 1', "not known here"),
        ('"Grandmother": {"a": {"b": 1}}, "Grandmother": 1', "not known here"),
    ],
)
def test_a_key_twice_in_an_object_is_refused_and_named(repeated: str, named: str) -> None:
    with pytest.raises(MessageMalformed, match="twice") as caught:
        decode(ConversationEvent, event_with(repeated))
    assert named in str(caught.value)
    assert "Grandmother" not in str(caught.value)


def test_a_key_twice_in_a_binary_message_is_refused_and_named() -> None:
    data = msgpack.packb(RESULT)
    assert data[0] == 0x80 | len(RESULT)
    with pytest.raises(MessageMalformed, match="the key 'agent_id' stands twice"):
        decode(SpeakerTurns, bytes([data[0] + 1]) + data[1:] + msgpack.packb("agent_id") + msgpack.packb("mini"))


@pytest.mark.parametrize("like_a_key", LIKE_KEYS)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")])
def test_text_that_looks_like_a_key_is_text(like_a_key: str, separators: tuple[str, str]) -> None:
    segment = {"id": "s", "text": like_a_key, "start_s": 0, "end_s": 1}
    fields = EVENT | {"started_at": "2026-01-01T10:00:00Z", "segments": [segment], like_a_key: like_a_key}
    event = decode(ConversationEvent, json.dumps(fields, separators=separators).encode())
    assert event.segments[0].text == like_a_key


def test_a_number_of_many_digits_that_nobody_reads_is_let_through() -> None:
    assert decode(ConversationEvent, event_with(f'"\\"": 1, "x": {"9" * 4_000}')).event_id == "e"


@given(
    pairs=st.lists(st.tuples(st.sampled_from(["a", "b", *LIKE_KEYS]), st.sampled_from([*LIKE_KEYS, 1, [], {}]))),
    colon=st.sampled_from([":", ": ", " :", "\t:\n"]),
)
def test_exactly_the_objects_with_a_key_twice_are_refused(pairs: list[tuple[str, Any]], colon: str) -> None:
    inner = ",".join(f"{json.dumps(key)}{colon}{json.dumps(value)}" for key, value in pairs)
    data = event_with(f'"x": {{{inner}}}')
    if len(dict(pairs)) == len(pairs):
        assert decode(ConversationEvent, data).event_id == "e"
    else:
        with pytest.raises(MessageMalformed, match="twice"):
            decode(ConversationEvent, data)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_how_an_event_is_read(encoding: str) -> None:
    event = EVENT | {"owner": "Zoë"}
    data = json.dumps(event, ensure_ascii=False).encode(encoding)
    assert decode(ConversationEvent, data).owner == "Zoë"
    assert read_envelope(ConversationEvent, data).event_id == "e"
