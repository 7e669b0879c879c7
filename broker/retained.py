"""Clearing a message that the broker keeps (it was published with the retain flag) and sends with each connect."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from broker.access import access_of
from schemas.errors import TopicMalformed
from schemas.topics import Topics

if TYPE_CHECKING:
    from broker.settings import BrokerSettings

PASSWORD = "PASSWORD"  # noqa: S105 - stands for it: no log holds one


def say_clearing(settings: BrokerSettings, topic: str) -> str:
    """Return the command that has the broker keep nothing on a topic of ours, for who may publish there."""
    address = settings.addresses[0]
    user = _find_publisher(Topics(settings.topic_root), topic)
    words = ["mosquitto_pub", "-h", address.host, "-p", str(address.port)]
    if address.tls:
        words += ["--cafile", str(settings.broker_ca_file)] if settings.broker_ca_file else ["--tls-use-os-certs"]
    words += ["-u", user, "-P", PASSWORD, "-q", "1", "-r", "-n", "-t", topic]
    return f"{shlex.join(words)} (with the password of {user})"


def _find_publisher(topics: Topics, topic: str) -> str:
    """Return the user who may publish on a topic, by the names that `omi-broker` gives."""
    try:
        address = topics.parse(topic)
    except TopicMalformed:  # an id in it is none: whoever may publish more than one of ours
        return "bridge"
    every = topics.filter(address.kind)
    if every in access_of("backend", topics).publish:
        return "backend"
    if address.sender_id and every in access_of("agent", topics).publish:
        return f"agent-{address.sender_id}"
    return "bridge"
