"""All messages by schema name, and the message that each topic carries."""

from __future__ import annotations

from schemas.agent import AgentControl, AgentHeartbeat, AgentWant
from schemas.audio import AudioPart, AudioPayload
from schemas.bridge import BridgeHeartbeat
from schemas.conversation import Accepted, ConversationEvent, ConversationUpdated
from schemas.failure import JobFailure
from schemas.people import PersonAccepted, PersonEvent
from schemas.record import Message
from schemas.topics import TopicKind
from schemas.turns import SpeakerTurns

MESSAGE_BY_TOPIC: dict[TopicKind, type[Message]] = {
    TopicKind.EVENTS: ConversationEvent,
    TopicKind.AUDIO: AudioPayload,
    TopicKind.ACCEPTED: Accepted,
    TopicKind.PARTS: AudioPart,
    TopicKind.TURNS: SpeakerTurns,
    TopicKind.FAILURE: JobFailure,
    TopicKind.UPDATED: ConversationUpdated,
    TopicKind.WANT: AgentWant,
    TopicKind.CONTROL: AgentControl,
    TopicKind.AGENT_HEARTBEAT: AgentHeartbeat,
    TopicKind.BRIDGE_HEARTBEAT: BridgeHeartbeat,
    TopicKind.PERSON_EVENTS: PersonEvent,
    TopicKind.PERSON_ACCEPTED: PersonAccepted,
}
MESSAGE_BY_SCHEMA: dict[str, type[Message]] = {message.SCHEMA: message for message in MESSAGE_BY_TOPIC.values()}
