"""Describe the contract for other languages: a JSON Schema for each message, and AsyncAPI for the topics.

Run `python -m schemas.document` after a change of a message or a topic; a test compares the files with the code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from schemas.messages import MESSAGE_BY_SCHEMA, MESSAGE_BY_TOPIC
from schemas.record import Message
from schemas.reference import write_reference
from schemas.topics import DEFAULT_ROOT, TopicKind, Topics

FOLDER = Path(__file__).parent
REFERENCE = FOLDER.parent / "docs" / "messages.md"
BACKEND, BRIDGE, AGENT, EVERYONE = "backend", "bridge", "agent", "everyone"
# Sender and receiver. The bridge publishes failures too, under its own id.
_ROUTES = {
    TopicKind.EVENTS: (BACKEND, BRIDGE),
    TopicKind.AUDIO: (BACKEND, BRIDGE),
    TopicKind.ACCEPTED: (BRIDGE, BACKEND),
    TopicKind.PARTS: (BRIDGE, AGENT),
    TopicKind.TURNS: (AGENT, BRIDGE),
    TopicKind.FAILURE: (AGENT, BRIDGE),
    TopicKind.UPDATED: (BRIDGE, BACKEND),
    TopicKind.WANT: (AGENT, BRIDGE),
    TopicKind.CONTROL: (BRIDGE, AGENT),
    TopicKind.AGENT_HEARTBEAT: (AGENT, BRIDGE),
    TopicKind.BRIDGE_HEARTBEAT: (BRIDGE, EVERYONE),
    TopicKind.PERSON_EVENTS: (BACKEND, BRIDGE),
    TopicKind.PERSON_ACCEPTED: (BRIDGE, BACKEND),
}
_RETAINED = (TopicKind.AGENT_HEARTBEAT, TopicKind.BRIDGE_HEARTBEAT)
_CONTENT_TYPES = {"json": "application/json", "msgpack": "application/msgpack"}


class _MessageSchema(GenerateJsonSchema):
    """JSON Schema has no type for bytes: describe them as msgpack's bin, and not as base64 in a string."""

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        described: JsonSchemaValue = {
            "type": "string",
            "format": "binary",
            "$comment": "msgpack bin: raw bytes, never base64",
        }
        if "max_length" in schema:
            described["maxLength"] = schema["max_length"]
        return described


def message_schema(message: type[Message], *, reference: str = DEFAULT_REF_TEMPLATE) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a message; lengths of bytes fields are in bytes.

    `reference` is the template of the references to its definitions, with `{model}` for the name of one.
    """
    schema = message.model_json_schema(by_alias=True, ref_template=reference, schema_generator=_MessageSchema)
    fields = schema["properties"]
    fields["schema"] = {"const": message.SCHEMA, "description": "Which message this is."}
    fields["version"] = {
        "type": "string",
        "pattern": rf"^{message.MAJOR}\.[0-9]{{1,3}}$",
        "description": f"major.minor; readers ignore what a newer minor adds and refuse majors but {message.MAJOR}.",
    }
    required = ["schema", "version", *schema.get("required", [])]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "required": required,
        "x-encoding": message.ENCODING,
        "x-max-encoded-bytes": message.MAX_ENCODED_BYTES,
    }


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of all topics, seen from the bridge, which talks to all others."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "omi-diarization",
            "version": "1.0.0",
            "description": (
                "Who spoke when, over MQTT. Operations are the bridge's: what it receives, others send. "
                "Nothing here relies on MQTT 5 or on a PUBACK: see docs for the receipts."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {_channel_name(kind): _channel(kind) for kind in TopicKind},
        "operations": {f"{_action(kind)}-{_channel_name(kind)}": _operation(kind) for kind in TopicKind},
        "components": {"messages": {name: _message(kind) for name, kind in MESSAGE_BY_SCHEMA.items()}},
    }


def _channel_name(kind: TopicKind) -> str:
    return kind.value.replace("/", "-")


def _address(kind: TopicKind) -> tuple[str, list[str]]:
    """Return a topic with the names of its ids in braces, and these names."""
    address = Topics(DEFAULT_ROOT).filter(kind)
    owners = {"conversations": "conversation_id", "agents": "agent_id", "bridge": "bridge_id", "people": "person_id"}
    names = [owners[address.removeprefix(f"{DEFAULT_ROOT}/").split("/")[0]], "agent_id"]
    found = []
    while "+" in address:
        found.append(names.pop(0))
        address = address.replace("+", f"{{{found[-1]}}}", 1)
    return address, found


def _channel(kind: TopicKind) -> dict[str, Any]:
    address, names = _address(kind)
    parameters = {name: {"description": "1 to 128 of A-Z a-z 0-9 _ -, the first no _ or -."} for name in names}
    message = MESSAGE_BY_TOPIC[kind].SCHEMA
    sender, receiver = _ROUTES[kind]
    return {
        "address": address,
        "description": f"{sender} -> {receiver}",
        "parameters": parameters,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }


def _action(kind: TopicKind) -> str:
    return "send" if _ROUTES[kind][0] == BRIDGE else "receive"


def _operation(kind: TopicKind) -> dict[str, Any]:
    channel = f"#/channels/{_channel_name(kind)}"
    return {
        "action": _action(kind),
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{MESSAGE_BY_TOPIC[kind].SCHEMA}"}],
        "bindings": {"mqtt": {"qos": 1, "retain": kind in _RETAINED}},
    }


def _message(message: type[Message]) -> dict[str, Any]:
    return {
        "name": message.SCHEMA,
        "title": message.__name__,
        "summary": (message.__doc__ or "").strip().splitlines()[0],
        "contentType": _CONTENT_TYPES[message.ENCODING],
        "payload": {"$ref": f"./json/{message.SCHEMA}.json"},
    }


def documents() -> dict[str, str]:
    """Return the text of every generated file by its path below `schemas/`."""
    files: dict[str, dict[str, Any]] = {
        f"json/{name}.json": message_schema(message) for name, message in MESSAGE_BY_SCHEMA.items()
    }
    files["asyncapi.json"] = asyncapi()
    return {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in files.items()}


def reference() -> str:
    """Return the text of docs/messages.md."""
    return write_reference(_ROUTES, {kind: _address(kind)[0] for kind in TopicKind})


def main() -> None:
    """Write every generated file; the page in docs/ only in a checkout, an installed package has no docs."""
    for path, text in documents().items():
        file = FOLDER / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {file}\n")
    if REFERENCE.parent.is_dir():
        REFERENCE.write_text(reference(), encoding="utf-8")
        sys.stdout.write(f"wrote {REFERENCE}\n")


if __name__ == "__main__":
    main()
