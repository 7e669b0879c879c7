"""Watching the broker: every message below the topic root, decoded, without audio and text."""

from __future__ import annotations

import math
import queue
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.session import Incoming
    from broker.settings import BrokerSettings
    from schemas.topics import Topics

POLL_S = 0.2
SILENCE_S = 15.0  # a bridge's last heartbeat comes at once, the next ones every 10 s
HIDDEN_FIELDS = ("audio", "embedding", "text", "owner", "words")
MAX_LIST = 6
# Of every message, or in its topic: no news in a line.
ENVELOPE = (
    "schema",
    "version",
    "instance_id",
    "sent_at",
    "started_at",
    "uptime_s",
    "versions",
    "conversation_id",
    "agent_id",
)


def watch_messages(settings: BrokerSettings, on_silence: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Yield every message as it arrives, retained ones first. Ends only when the caller stops.

    `on_silence` is called once where none came for so long that there is no bridge, or this user may read nothing.

    Raises `BrokerUnreachable` or `BrokerRefused` of `broker.errors`.
    """
    from broker.session import MqttSession
    from schemas.topics import TopicKind, Topics

    topics = Topics(settings.topic_root)
    messages: queue.Queue[Incoming] = queue.Queue()
    session = MqttSession(settings, client_id=f"watch-{secrets.token_hex(8)}", on_message=messages.put)
    for kind in TopicKind:
        session.subscribe(topics.filter(kind), qos=1)
    session.start()
    try:
        session.wait_connected(timeout_s=10.0)
        silent_at_s = time.monotonic() + SILENCE_S
        while True:
            try:
                message = messages.get(timeout=POLL_S)
            except queue.Empty:
                if time.monotonic() >= silent_at_s:
                    silent_at_s = math.inf
                    on_silence()
                continue
            silent_at_s = math.inf
            yield describe(topics, message)
    finally:
        session.stop()


def describe(topics: Topics, message: Incoming) -> dict[str, Any]:
    """Return what may be shown of a message: everything but audio, embeddings, text, owner and names."""
    from schemas.audio_container import find_container
    from schemas.codec import decode
    from schemas.errors import SchemaError, TopicMalformed
    from schemas.messages import MESSAGE_BY_TOPIC
    from schemas.people import PersonEvent
    from schemas.topics import TopicKind

    shown: dict[str, Any] = {
        "seen_at": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
        "topic": message.topic,
        "bytes": len(message.payload),
        "retain": message.retain,
    }
    try:
        address = topics.parse(message.topic)
        kind = MESSAGE_BY_TOPIC[address.kind]
        bare = find_container(message.payload) if address.kind is TopicKind.AUDIO else None
        if bare is not None:
            return shown | {"kind": address.kind, "message": {"bare_file": bare.name}}
        decoded = decode(kind, message.payload)
        named = {"name", "consent_date"} if isinstance(decoded, PersonEvent) else set[str]()
        told = decoded.model_dump(by_alias=True, exclude_none=True, exclude=named)
        return shown | {"kind": address.kind, "message": _hide(told)}
    except (SchemaError, TopicMalformed) as error:
        return shown | {"error": str(error)}


def summarize(message: dict[str, Any]) -> str:
    """Return what a message says in one line: its fields with one value, and of the others how many there are."""
    facts = []
    for name, value in message.items():
        if name in ENVELOPE or value in (None, "", [], (), {}):
            continue
        if isinstance(value, list | tuple):
            facts.append(f"{len(value)} {name}")
        elif isinstance(value, dict):
            facts += [
                f"{name}.{key}={item}" for key, item in value.items() if isinstance(item, str | int | float) and item
            ]
        else:
            facts.append(f"{name}={value}")
    return " ".join(facts)


def _hide(value: Any) -> Any:  # noqa: ANN401 - any part of any message
    if isinstance(value, dict):
        return {key: _size(item) if _is_private(key, item) else _hide(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        shown = [_hide(item) for item in value[:MAX_LIST]]
        return shown if len(value) <= MAX_LIST else [*shown, f"… {len(value) - MAX_LIST} more"]
    return value


def _is_private(key: str, value: Any) -> bool:  # noqa: ANN401 - any part of any message
    return isinstance(value, bytes) or (key in HIDDEN_FIELDS and isinstance(value, str | list | tuple))


def _size(value: bytes | str | list[Any] | tuple[Any, ...]) -> str:
    unit = {bytes: "bytes", str: "characters"}.get(type(value), "items")
    return f"<{len(value)} {unit}>"
