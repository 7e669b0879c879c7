"""Recording the messages of the demo with their times, to show how long each stage took."""

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
class RecordedMessage:
    """A message and when it arrived (monotonic seconds)."""

    at_s: float
    kind: TopicKind
    message: Message
    retain: bool


@dataclass
class MessageRecorder:
    """A subscriber that keeps the messages of all `KINDS`, oldest first."""

    settings: BrokerSettings
    messages: list[RecordedMessage] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Connect; the user of `settings` must be allowed to receive everything."""
        self._topics = Topics(self.settings.topic_root)
        self._session = MqttSession(self.settings, client_id=f"recorder-{time.monotonic_ns()}", on_message=self._keep)
        for kind in KINDS:
            self._session.subscribe(self._topics.filter(kind), qos=1)
        self._session.start()
        self._session.wait_connected(timeout_s=10.0)

    def _keep(self, message: Incoming) -> None:
        kind = self._topics.parse(message.topic).kind
        decoded = decode(KINDS[kind], message.payload)
        self.messages.append(RecordedMessage(time.monotonic(), kind, decoded, message.retain))

    def __enter__(self) -> Self:
        """Return itself: it is already connected."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._session.stop()

    def of(self, kind: TopicKind) -> list[RecordedMessage]:
        """Return the messages of one kind, oldest first."""
        return [recorded for recorded in list(self.messages) if recorded.kind is kind]

    def agent_online(self) -> AgentHeartbeat | None:
        """Return the last heartbeat of an agent if it says `online`."""
        beats = [recorded.message for recorded in self.of(TopicKind.AGENT_HEARTBEAT)]
        last = beats[-1] if beats else None
        return last if isinstance(last, AgentHeartbeat) and last.state is AgentState.ONLINE else None

    def bridge_online(self) -> bool:
        """Whether the bridge's last heartbeat says `online`."""
        beats = [recorded.message for recorded in self.of(TopicKind.BRIDGE_HEARTBEAT)]
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
        for recorded in self.of(kind):
            message = recorded.message
            if isinstance(message, AgentControl) and message.type is not ControlType.OFFER:
                continue
            if isinstance(message, Accepted) and message.chunk_id is None:
                continue
            if getattr(message, "conversation_id", None) == conversation_id:
                return recorded.at_s
        return None
