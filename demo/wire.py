"""What passed over the broker during the demo, with the time it passed: where the seconds went."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from broker.session import Incoming, MqttSession
from broker.settings import BrokerSettings
from schemas.agent import AgentControl, AgentHeartbeat, AgentState, ControlType
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode
from schemas.conversation import Accepted, ConversationUpdated
from schemas.failure import JobFailure
from schemas.record import Message
from schemas.topics import TopicKind, Topics
from schemas.turns import SpeakerTurns

KINDS: dict[TopicKind, type[Message]] = {
    TopicKind.ACCEPTED: Accepted,
    TopicKind.CONTROL: AgentControl,
    TopicKind.TURNS: SpeakerTurns,
    TopicKind.UPDATED: ConversationUpdated,
    TopicKind.FAILURE: JobFailure,
    TopicKind.AGENT_HEARTBEAT: AgentHeartbeat,
    TopicKind.BRIDGE_HEARTBEAT: BridgeHeartbeat,
}


@dataclass(frozen=True)
class Seen:
    """A message and when it passed (monotonic seconds)."""

    at_s: float
    kind: TopicKind
    message: Message
    retain: bool


@dataclass
class Wire:
    """A subscriber that keeps every message it understands, oldest first."""

    settings: BrokerSettings
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Connect; the user must see everything."""
        self._topics = Topics(self.settings.topic_root)
        self._session = MqttSession(self.settings, client_id=f"wire-{time.monotonic_ns()}", on_message=self._keep)
        for kind in KINDS:
            self._session.subscribe(self._topics.filter(kind), qos=1)
        self._session.start()
        self._session.wait_connected(timeout_s=10.0)

    def _keep(self, message: Incoming) -> None:
        kind = self._topics.parse(message.topic).kind
        decoded = decode(KINDS[kind], message.payload)
        self.seen.append(Seen(time.monotonic(), kind, decoded, message.retain))

    def __enter__(self) -> Self:
        """Listen already."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._session.stop()

    def of(self, kind: TopicKind) -> list[Seen]:
        """Return what was seen of one kind, oldest first."""
        return [seen for seen in list(self.seen) if seen.kind is kind]

    def agent_online(self) -> AgentHeartbeat | None:
        """Return the last heartbeat of an agent if it says `online`."""
        beats = [seen.message for seen in self.of(TopicKind.AGENT_HEARTBEAT)]
        last = beats[-1] if beats else None
        return last if isinstance(last, AgentHeartbeat) and last.state is AgentState.ONLINE else None

    def bridge_online(self) -> bool:
        """Whether the bridge's last heartbeat says `online`."""
        beats = [seen.message for seen in self.of(TopicKind.BRIDGE_HEARTBEAT)]
        return bool(beats) and isinstance(beats[-1], BridgeHeartbeat) and beats[-1].state is BridgeState.ONLINE

    def stages(self, conversation_id: str, published_s: float) -> dict[str, float]:
        """Return the seconds each stage took for the first chunk of a conversation, in order."""
        marks = {
            "published → accepted (checked, on disk)": self._first(TopicKind.ACCEPTED, conversation_id),
            "accepted → offered (assembled, leased)": self._first(TopicKind.CONTROL, conversation_id),
            "offered → turns (pulled, decoded, diarized)": self._first(TopicKind.TURNS, conversation_id),
            "turns → updated (stored, linked, assigned)": self._first(TopicKind.UPDATED, conversation_id),
        }
        spent: dict[str, float] = {}
        before_s = published_s
        for name, at_s in marks.items():
            if at_s is not None:
                spent[name] = at_s - before_s
                before_s = at_s
        return spent

    def _first(self, kind: TopicKind, conversation_id: str) -> float | None:
        for seen in self.of(kind):
            message = seen.message
            if isinstance(message, AgentControl) and message.type is not ControlType.OFFER:
                continue
            if isinstance(message, Accepted) and message.chunk_id is None:
                continue
            if getattr(message, "conversation_id", None) == conversation_id:
                return seen.at_s
        return None
