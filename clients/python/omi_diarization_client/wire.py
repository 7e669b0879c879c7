"""The messages and topics of the contract, version 1, as far as a backend sends and hears them.

The contract itself is the JSON Schemas of omi-diarization; its tests hold what is written here to them.
"""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, date, datetime
from typing import Any

import msgpack

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_EVENT_VERSION, _PERSON_VERSION, _AUDIO_VERSION = "1.3", "1.0", "1.1"
# Codes with which the same audio or event, sent again later, may be accepted.
RETRYABLE_CODES = frozenset(
    {
        "payload.incomplete",
        "payload.sha256_mismatch",
        "engine.crashed",
        "engine.failed",
        "engine.timeout",
        "engine.over_limit",
        "ingest.full",
        "disk.full",
        "spool.unavailable",
    }
)

Message = dict[str, Any]


def check_id(what: str, value: object) -> str:
    """Return an id that may be a level of a topic. Raises `ValueError` where it may not."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise ValueError(f"{what} {str(value)[:40]!r}: use 1 to 128 of A-Z a-z 0-9 _ - and no dot")
    return value


def new_id(kind: str) -> str:
    """Return an id that nobody else uses, `e-…` for an event, `c-…` for a chunk."""
    return f"{kind}-{secrets.token_hex(12)}"


def conversation_topic(root: str, conversation_id: str, leaf: str) -> str:
    """Return a conversation's topic: `events`, `audio`, `accepted` or `updated`; `+` stands for every conversation."""
    level = "+" if conversation_id == "+" else check_id("conversation id", conversation_id)
    return f"{root}/conversations/{level}/{leaf}"


def person_topic(root: str, person_id: str, leaf: str) -> str:
    """Return a person's topic: `events` or `accepted`."""
    return f"{root}/people/{check_id('person id', person_id)}/{leaf}"


def utc_text(moment: datetime) -> str:
    """Return a time as the contract writes it. Raises `ValueError` where its time zone is not known."""
    if moment.tzinfo is None:
        raise ValueError("a time needs its time zone, such as datetime.now(UTC): without it it may be hours off")
    return moment.astimezone(UTC).isoformat()


def make_event(kind: str, **fields: object) -> Message:
    """Return an event about a conversation, with an id of its own; what is None is left out."""
    return _make("conversation-event", _EVENT_VERSION, {"event_id": new_id("e"), "type": kind, **fields})


def make_person_event(kind: str, **fields: object) -> Message:
    """Return an event about a person, with an id of its own; what is None is left out."""
    return _make("person-event", _PERSON_VERSION, {"event_id": new_id("e"), "type": kind, **fields})


def make_audio(**fields: object) -> Message:
    """Return the message that carries a chunk or a part of it, without the audio; what is None is left out."""
    return _make("audio-payload", _AUDIO_VERSION, fields)


def _make(schema: str, version: str, fields: Message) -> Message:
    said = {name: _plain(value) for name, value in fields.items() if value is not None}
    return {"schema": schema, "version": version, **said}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return utc_text(value)
    return value.isoformat() if isinstance(value, date) else value


def make_segments(conversation_id: str, transcript: list[Message]) -> list[Message]:
    """Return a transcript's segments under the contract's names: `start` and `end` are `start_s` and `end_s` too.

    A segment without an id gets one made of the conversation's and its place, the same every time.
    """
    segments = []
    for place, row in enumerate(transcript):
        if not isinstance(row, dict):
            raise ValueError(f"segment {place} of the transcript is no dict with text, start and end")  # noqa: TRY004 - the caller's value, as all others here
        segment = {"id": f"{conversation_id}-{place:05d}", **row}
        for name in ("start", "end"):
            if name in segment:
                segment.setdefault(f"{name}_s", segment.pop(name))
        if not {"start_s", "end_s"} <= segment.keys():
            raise ValueError(f"segment {place} of the transcript has no start and end: give both, in seconds")
        segments.append(segment)
    return segments


def encode_json(message: Message) -> bytes:
    """Return an event's bytes."""
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def encode_audio(message: Message) -> bytes:
    """Return the bytes of a message with audio."""
    packed: bytes = msgpack.packb(message, use_bin_type=True)
    return packed


def decode_json(payload: bytes | bytearray) -> Message:
    """Return a message. Raises `ValueError` where it is no JSON object of version 1."""
    message = json.loads(payload)
    if not isinstance(message, dict) or not str(message.get("version", "")).startswith("1."):
        raise ValueError("no message of version 1")
    return message


def parse_time(text: object) -> datetime | None:
    """Return a time of a message; None where it is none."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else None
