"""The webhook in the OpenAPI document: what the bridge sends to the operator's receiver, and how that has to answer."""

from __future__ import annotations

from typing import Any

from schemas.conversation import ConversationUpdated
from schemas.failure import JobFailure
from schemas.record import Message
from schemas.webhook_headers import DELIVERY, SCHEMA, SIGNATURE

SENT: tuple[type[Message], ...] = (ConversationUpdated, JobFailure)
_SUMMARIES = {
    ConversationUpdated: "The labels of a conversation changed.",
    JobFailure: "A job was given up, or (without `job_id`) a conversation's labels could not be worked out.",
}
_HEADERS = {
    DELIVERY: "The same for every attempt at this message, and for no other.",
    SIGNATURE: "`t=UNIX_TIME,v1=HEX`: HMAC-SHA256, with the shared secret, of `t`, a dot and the body.",
}


def describe_webhooks(reference: str) -> dict[str, Any]:
    """Return the section `webhooks`; `reference` is the template of a reference to a message, with `{model}`."""
    return {message.SCHEMA: {"post": _describe(message, reference)} for message in SENT}


def _describe(message: type[Message], reference: str) -> dict[str, Any]:
    headers = [
        {"name": name, "in": "header", "required": True, "description": words, "schema": {"type": "string"}}
        for name, words in _HEADERS.items()
    ]
    kind = {"name": SCHEMA, "in": "header", "required": True, "schema": {"const": message.SCHEMA}}
    body = {"schema": {"$ref": reference.format(model=message.__name__)}}
    return {
        "summary": _SUMMARIES[message],
        "description": "Sent while OMI_WEBHOOK_URL names a receiver: each message until it is taken, those of one "
        "conversation in order.",
        "security": [],
        "parameters": [*headers, kind],
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "2XX": {"description": "Taken. Answer once it is stored."},
            "default": {"description": "Not taken: it is sent again later."},
        },
    }
