"""The topics of all messages; topics are built and parsed here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import TopicMalformed
from schemas.record import is_id

DEFAULT_ROOT = "omi/v1"


class TopicKind(StrEnum):
    """The kinds of topics, one for each message."""

    EVENTS = "events"
    AUDIO = "audio"
    ACCEPTED = "accepted"
    PARTS = "audio/agent"
    TURNS = "turns/agent"
    FAILURE = "failure/agent"
    UPDATED = "updated"
    WANT = "want"
    CONTROL = "control"
    AGENT_HEARTBEAT = "agent/heartbeat"
    BRIDGE_HEARTBEAT = "bridge/heartbeat"
    PERSON_EVENTS = "people/events"
    PERSON_ACCEPTED = "people/accepted"


_CONVERSATION_LEAVES = {
    "events": TopicKind.EVENTS,
    "audio": TopicKind.AUDIO,
    "accepted": TopicKind.ACCEPTED,
    "updated": TopicKind.UPDATED,
}
_CONVERSATION_BRANCHES = {"audio": TopicKind.PARTS, "turns": TopicKind.TURNS, "failure": TopicKind.FAILURE}
_AGENT_LEAVES = {
    "want": TopicKind.WANT,
    "control": TopicKind.CONTROL,
    "heartbeat": TopicKind.AGENT_HEARTBEAT,
}
_PERSON_LEAVES = {"events": TopicKind.PERSON_EVENTS, "accepted": TopicKind.PERSON_ACCEPTED}


@dataclass(frozen=True)
class TopicAddress:
    """A parsed topic. `sender_id` is the agent's or bridge's id where the topic names one."""

    kind: TopicKind
    conversation_id: str | None = None
    sender_id: str | None = None
    person_id: str | None = None


def _checked(name: str, value: str) -> str:
    if not is_id(value):
        msg = f"{name} {value[:40]!r} may not stand in a topic: use 1 to 128 of A-Z a-z 0-9 _ - and no dot"
        raise TopicMalformed(msg)
    return value


@dataclass(frozen=True)
class Topics:
    """Builds and parses topics under one root. Raises `TopicMalformed` for ids that do not fit."""

    root: str = DEFAULT_ROOT

    def __post_init__(self) -> None:
        """Refuse a root that is not made of valid levels."""
        if not self.root or any(not is_id(level) for level in self.root.split("/")):
            msg = f"topic root {self.root[:80]!r}: use levels of A-Z a-z 0-9 _ - parted by single slashes"
            raise TopicMalformed(msg)

    def _conversation(self, conversation_id: str, leaf: str, sender_id: str | None = None) -> str:
        base = f"{self.root}/conversations/{_checked('conversation_id', conversation_id)}/{leaf}"
        return base if sender_id is None else f"{base}/{_checked('agent_id', sender_id)}"

    def events(self, conversation_id: str) -> str:
        """Topic of the backend's events."""
        return self._conversation(conversation_id, "events")

    def audio(self, conversation_id: str) -> str:
        """Topic of the backend's audio."""
        return self._conversation(conversation_id, "audio")

    def accepted(self, conversation_id: str) -> str:
        """Topic of the bridge's receipts."""
        return self._conversation(conversation_id, "accepted")

    def updated(self, conversation_id: str) -> str:
        """Topic of the bridge's updates."""
        return self._conversation(conversation_id, "updated")

    def parts(self, conversation_id: str, agent_id: str) -> str:
        """Topic of the parts one agent asked for."""
        return self._conversation(conversation_id, "audio", agent_id)

    def turns(self, conversation_id: str, agent_id: str) -> str:
        """Topic of one agent's results."""
        return self._conversation(conversation_id, "turns", agent_id)

    def failure(self, conversation_id: str, sender_id: str) -> str:
        """Topic of failures by an agent, or by the bridge under its own id."""
        return self._conversation(conversation_id, "failure", sender_id)

    def want(self, agent_id: str) -> str:
        """Topic where an agent asks for parts."""
        return f"{self.root}/agents/{_checked('agent_id', agent_id)}/want"

    def control(self, agent_id: str) -> str:
        """Topic of the bridge's messages to one agent."""
        return f"{self.root}/agents/{_checked('agent_id', agent_id)}/control"

    def agent_heartbeat(self, agent_id: str) -> str:
        """Topic of an agent's heartbeat."""
        return f"{self.root}/agents/{_checked('agent_id', agent_id)}/heartbeat"

    def bridge_heartbeat(self, bridge_id: str) -> str:
        """Topic of the bridge's heartbeat."""
        return f"{self.root}/bridge/{_checked('bridge_id', bridge_id)}/heartbeat"

    def person_events(self, person_id: str) -> str:
        """Topic of what the backend says of a person."""
        return f"{self.root}/people/{_checked('person_id', person_id)}/events"

    def person_accepted(self, person_id: str) -> str:
        """Topic of the bridge's receipts about a person."""
        return f"{self.root}/people/{_checked('person_id', person_id)}/accepted"

    def filter(self, kind: TopicKind, *, sender_id: str = "+", conversation_id: str = "+") -> str:
        """Return the subscription filter for all topics of a kind, or for those of one sender or conversation."""
        sender = sender_id if sender_id == "+" else _checked("sender_id", sender_id)
        conversation = conversation_id if conversation_id == "+" else _checked("conversation_id", conversation_id)
        if kind in _CONVERSATION_LEAVES.values():
            return f"{self.root}/conversations/{conversation}/{kind.value}"
        if kind in _CONVERSATION_BRANCHES.values():
            return f"{self.root}/conversations/{conversation}/{kind.value.split('/')[0]}/{sender}"
        if kind is TopicKind.BRIDGE_HEARTBEAT:
            return f"{self.root}/bridge/{sender}/heartbeat"
        if kind in _PERSON_LEAVES.values():
            return f"{self.root}/people/+/{kind.value.split('/')[1]}"
        return f"{self.root}/agents/{sender}/{kind.value.rsplit('/', maxsplit=1)[-1]}"

    def parse(self, topic: str) -> TopicAddress:
        """Return the kind and the ids of a topic. Raises `TopicMalformed` where it is not one of ours."""
        prefix = self.root + "/"
        levels = topic[len(prefix) :].split("/") if topic.startswith(prefix) else []
        address = _parse_levels(levels)
        ids = (address.conversation_id, address.sender_id, address.person_id) if address else ()
        if address is None or any(part is not None and not is_id(part) for part in ids):
            msg = f"topic {topic[:200]!r} is not one of this root's ({self.root})"
            raise TopicMalformed(msg)
        return address


def _parse_levels(levels: list[str]) -> TopicAddress | None:
    match levels:
        case ["conversations", conversation_id, leaf] if leaf in _CONVERSATION_LEAVES:
            return TopicAddress(_CONVERSATION_LEAVES[leaf], conversation_id)
        case ["conversations", conversation_id, branch, sender_id] if branch in _CONVERSATION_BRANCHES:
            return TopicAddress(_CONVERSATION_BRANCHES[branch], conversation_id, sender_id)
        case ["agents", agent_id, leaf] if leaf in _AGENT_LEAVES:
            return TopicAddress(_AGENT_LEAVES[leaf], sender_id=agent_id)
        case ["people", person_id, leaf] if leaf in _PERSON_LEAVES:
            return TopicAddress(_PERSON_LEAVES[leaf], person_id=person_id)
        case ["bridge", bridge_id, "heartbeat"]:
            return TopicAddress(TopicKind.BRIDGE_HEARTBEAT, sender_id=bridge_id)
        case _:
            return None
