"""Write docs/messages.md: every topic, message, field, value and raw encoding, each message with an example.

`python -m schemas.document` writes it together with the JSON Schemas; a test compares it with the code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from schemas.agent import AgentState, ControlType, HeldJobState
from schemas.audio import RAW_SAMPLE_BYTES
from schemas.audio_container import AudioContainer
from schemas.bridge import BridgeState
from schemas.conversation import ConversationEvent, Verdict
from schemas.corrections import CorrectionKind
from schemas.event_fields import (
    EVENT_FIELDS,
    EVERY_EVENT,
    EVERY_PERSON_EVENT,
    PERSON_EVENT_FIELDS,
    EventFields,
)
from schemas.examples import examples_of
from schemas.failure import FAILURE_POLICIES
from schemas.messages import MESSAGE_BY_SCHEMA, MESSAGE_BY_TOPIC
from schemas.people import PersonEvent
from schemas.record import ID_PATTERN, SHA256_PATTERN, VERSION_PATTERN, Message
from schemas.topics import TopicKind

_INTRO = """# Messages

This page is written by `python -m schemas.document` from the code: do not edit it. For programs the same is in
[`schemas/json/`](../schemas/json) (JSON Schema 2020-12) and in [`schemas/asyncapi.json`](../schemas/asyncapi.json)
(AsyncAPI 3). Ten lines that use it: [backend-in-ten-lines.md](backend-in-ten-lines.md).

- All messages go at QoS 1. Only heartbeats are retained. MQTT 3.1.1 is enough; nothing needs MQTT 5.
- An id (of a conversation, a chunk, an event, an agent, a person) is 1 to 128 of `A-Z a-z 0-9 _ -`, the first a letter
  or a digit.
- Times of day are ISO 8601 with a time zone (`2026-05-04T10:00:00Z`). Durations and places are seconds. A `sha256` is
  lower-case hexadecimal.
- Every message has `schema` and `version` (major.minor). Fields that a reader does not know are ignored; another major
  is refused.
- A field that is not marked *needed* may be left out. What is too large, too deep or no number (NaN, infinity) is
  refused, and so is a key that stands twice.
- Send every message again until its receipt: audio and events until `accepted`; the bridge sends `updated` until you
  say `applied`. The same id with the same content is answered the same, and changes nothing twice.
"""
_LITERAL_CHARS = 90  # with the name before it, what fits a line
_LONG_NUMBER = 1e6  # a bound above it says nothing to a person
_PATTERNS = {ID_PATTERN: "id", SHA256_PATTERN: "sha256", VERSION_PATTERN: "version"}
_RAW_MEANS = {
    "pcm_s16le": "signed 16 bits, little endian",
    "pcm_u8": "unsigned 8 bits",
    "pcm_mulaw": "µ-law, 8 bits (telephone, North America and Japan)",
    "pcm_alaw": "A-law, 8 bits (telephone, elsewhere)",
    "pcm_f32le": "float, 32 bits, little endian, from -1 to 1",
}
_ENUMS: Mapping[str, tuple[type[StrEnum], Mapping[str, str]]] = {
    "Verdicts of a receipt": (
        Verdict,
        {
            "accepted": "It is the bridge's now. You need not keep it.",
            "stored": "To an agent: the result is stored.",
            "duplicate": "It was there before, with the same content. Nothing changed.",
            "discarded": "It counts no more; `reason` says why. Do not send it again.",
            "refused": "It is wrong; `reason` and `message` say what. The same again is refused again.",
        },
    ),
    "Kinds of corrections": (
        CorrectionKind,
        {
            "same_voice": "These numbers (`speaker_ids`) are one voice.",
            "other_voice": "These segments (`segment_ids`) are one voice, and not the one they were given to.",
            "segment_is": "This segment (`segment_id`) is that speaker (`speaker_id`) or that person (`person_id`).",
            "voice_is": "This voice (`speaker_id`) is that person (`person_id`).",
            "voice_is_not": "This voice is not that person.",
        },
    ),
    "States of an agent": (
        AgentState,
        {
            "starting": "It loads the weights.",
            "online": "It takes work.",
            "draining": "It finishes what it has, and takes no more.",
            "stopped": "It ended by itself.",
            "offline": "Its connection broke: the broker says so in its place.",
        },
    ),
    "States of a job on an agent": (
        HeldJobState,
        {
            "receiving": "Its audio is coming.",
            "queued": "Its audio is here; another job runs.",
            "running": "The engine works on it.",
            "outbox": "Its result waits until the bridge has it.",
        },
    ),
    "States of the bridge": (
        BridgeState,
        {"online": "It works.", "stopped": "It ended by itself.", "offline": "Its connection broke."},
    ),
    "What the bridge tells an agent": (
        ControlType,
        {
            "offer": "Here is a job and a lease on it.",
            "settled": "The result or the failure is dealt with.",
            "cancel": "Stop working on it.",
            "drain": "Finish, and take no more.",
            "ping": "Send a heartbeat now.",
        },
    ),
}


def write_reference(routes: Mapping[TopicKind, tuple[str, str]], addresses: Mapping[TopicKind, str]) -> str:
    """Return the page.

    Args:
        routes: sender and receiver of each kind of topic.
        addresses: the topic of each kind, with `{conversation_id}` and the like in it.
    """
    parts = [_INTRO, "## Topics\n", _topics(routes, addresses), _events(), _people_events()]
    parts += [_message(kind) for kind in MESSAGE_BY_SCHEMA.values()]
    parts += ["## Values\n"]
    parts += [f"### {title}\n\n{_enum(*described)}" for title, described in _ENUMS.items()]
    parts += [_failures(), _encodings()]
    return "\n".join(parts)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _topics(routes: Mapping[TopicKind, tuple[str, str]], addresses: Mapping[TopicKind, str]) -> str:
    rows = []
    for kind, message in MESSAGE_BY_TOPIC.items():
        name, (sender, receiver) = message.SCHEMA, routes[kind]
        rows.append(
            [f"`{addresses[kind]}`", f"[{name}](#{name})", message.ENCODING, f"{sender} → {receiver}"],
        )
    return table(["topic", "message", "encoding", "from → to"], rows) + (
        "\nThe bridge publishes failures of its own under its id in the place of `{agent_id}`. On the audio topic a\n"
        "backend may publish a bare audio file too: it is a chunk without a description, and always new.\n"
    )


def _event_table(events: Mapping[Any, EventFields], fields: Iterable[str]) -> str:
    def mark(event: EventFields, field: str) -> str:
        group = next((group for group in event.needs if field in group), None)
        if group is not None:
            return "needed" if len(group) == 1 else "one of them"
        return "may" if field in event.may else "–"

    rows = [[f"`{field}`", *(mark(event, field) for event in events.values())] for field in fields]
    return table(["field", *(f"`{kind}`" for kind in events)], rows)


def _events() -> str:
    own = [name for name in _field_names(ConversationEvent) if name not in EVERY_EVENT]
    says = [[f"`{kind}`", fields.says] for kind, fields in EVENT_FIELDS.items()]
    return (
        "## Events of a conversation\n\n"
        + table(["`type`", "it says"], says)
        + f"\nEvery event may have {_listed(EVERY_EVENT)}; it needs the first two. Of the others:\n\n"
        + _event_table(EVENT_FIELDS, own)
    )


def _people_events() -> str:
    own = [name for name in _field_names(PersonEvent) if name not in EVERY_PERSON_EVENT]
    says = [[f"`{kind}`", fields.says] for kind, fields in PERSON_EVENT_FIELDS.items()]
    return (
        "## Events of a person\n\n"
        + table(["`type`", "it says"], says)
        + f"\nEvery event may have {_listed(EVERY_PERSON_EVENT)}; it needs the first two. Of the others:\n\n"
        + _event_table(PERSON_EVENT_FIELDS, own)
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _field_names(message: type[Message]) -> list[str]:
    return [name for name in message.model_fields if name not in ("schema_name", "version")]


def _message(message: type[Message]) -> str:
    schema = message.model_json_schema(by_alias=True)
    summary = " ".join((message.__doc__ or "").split())
    size = f"at most {message.MAX_ENCODED_BYTES:,} bytes"
    parts = [f"## {message.SCHEMA}\n", f"{summary}\n", f"{message.ENCODING}, {size}.\n"]
    parts.append(_fields(schema, message.model_fields["version"].default))
    for name, record in schema.get("$defs", {}).items():
        if "properties" in record:
            parts.append(f"**{name}**: {' '.join(record.get('description', '').split())}\n\n{_fields(record)}")
    parts.append(_examples(message))
    return "\n".join(part for part in parts if part)


def _fields(schema: Mapping[str, Any], version: str | None = None) -> str:
    needed = {"schema", "version"} | set(schema.get("required", ())) if version else set(schema.get("required", ()))
    rows = []
    for name, field in schema.get("properties", {}).items():
        means = " ".join(field.get("description", "").split())
        if name == "version" and version:
            means = f"`{version}`; any `1.x` is read."
        rows.append([f"`{name}`", _type(field), "needed" if name in needed else "", means])
    return table(["field", "type", "", "means"], rows) if rows else ""


def _type(field: Mapping[str, Any]) -> str:
    """Return a type in words: the shape, the range, the values."""
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"] if option.get("type") != "null")
    if "$ref" in field or "allOf" in field:
        name = field.get("$ref") or field["allOf"][0]["$ref"]
        return str(name).rsplit("/", 1)[-1]
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = field.get("type", "any")
    if kind == "array":
        most = f"at most {field['maxItems']:,} " if "maxItems" in field else ""
        return f"list of {most}× {_type(field.get('items', {}))}"
    if kind == "object":
        return f"object: name → {_type(field.get('additionalProperties', {}))}"
    if kind == "string" and field.get("format") == "binary":
        return "bytes"
    return _bounds(str(field.get("format", kind)), field)


def _bounds(kind: str, field: Mapping[str, Any]) -> str:
    low, high, longest = field.get("minimum"), field.get("maximum"), field.get("maxLength")
    if low is not None and high is not None:
        return f"{kind} {low:,g} to {high:,g}" if abs(high) < _LONG_NUMBER else kind
    if longest is not None:
        return f"{kind} of at most {longest:,}"
    return _PATTERNS.get(field.get("pattern", ""), f"{kind} `{field['pattern']}`" if "pattern" in field else kind)


def _examples(message: type[Message]) -> str:
    """Return the examples: events a line each, what is msgpack as the object that is packed."""
    payloads = examples_of(message.SCHEMA, message.model_fields["version"].default)
    if message.ENCODING == "msgpack":
        return f"```python\n{_literal(payloads[0])}\n```\n"
    indent = 2 if len(payloads) == 1 else None
    lines = "\n".join(json.dumps(payload, indent=indent, ensure_ascii=False) for payload in payloads)
    return f"```json\n{lines}\n```\n"


def _literal(value: Any, indent: int = 0) -> str:  # noqa: ANN401 - any part of a payload
    """Return a part of a payload as Python, as `ruff format` would have it: what does not fit a line, a line each."""
    if isinstance(value, bytes):
        return 'b"' + "".join(f"\\x{byte:02x}" for byte in value) + '"'
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(_literal(item, 1) for item in value)}]"
    if not isinstance(value, dict):
        return str(value)
    inline = ", ".join(f"{json.dumps(name)}: {_literal(item, 1)}" for name, item in value.items())
    if indent and indent + len(inline) < _LITERAL_CHARS:
        return "{" + inline + "}"
    inner = indent + 4
    lines = [f"{' ' * inner}{json.dumps(name)}: {_literal(item, inner)},\n" for name, item in value.items()]
    return "{\n" + "".join(lines) + " " * indent + "}"


def _enum(kind: type[StrEnum], means: Mapping[str, str]) -> str:
    return table(["value", "means"], [[f"`{value.value}`", means[value.value]] for value in kind])


def _failures() -> str:
    rows = [
        [
            f"`{code.value}`",
            str(policy.http_status),
            "yes" if policy.counts_as_attempt else "",
            "yes" if policy.is_retryable else "",
            policy.remedy.format(job="JOB"),
        ]
        for code, policy in FAILURE_POLICIES.items()
    ]
    head = ["code", "HTTP", "uses up an attempt", "the same may succeed", "what an operator does"]
    words = "In `reason` of a receipt, `code` of a failure and over HTTP. A reader must survive codes it does not know."
    return f"### Failure codes\n\n{words}\n\n{table(head, rows)}"


def _encodings() -> str:
    raw = [[f"`{name}`", str(size), _RAW_MEANS[name]] for name, size in RAW_SAMPLE_BYTES.items()]
    files = ", ".join(f"`{container.value}`" for container in AudioContainer)
    return (
        "## Encodings of audio\n\n"
        "**Files.** `encoding` may be left out (`auto`): what the bytes are is seen from the bytes. It may name one of "
        f"{files},\nwhich changes nothing.\n\n"
        "**Raw samples**, without a header and interleaved, need `encoding`, `sample_rate` (Hz) and `channels`:\n\n"
        + table(["`encoding`", "bytes a sample", "means"], raw)
        + "\nRaw Opus packets are no encoding here: put them into an Ogg file.\n"
        "Over HTTP the same three are parameters of the query.\n"
    )
