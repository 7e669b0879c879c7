"""A short connection to the broker as the bridge's user: what it grants, and who is heard there."""

from __future__ import annotations

import hashlib
import queue
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from broker.access import BROKER_VERSION
from broker.errors import BrokerError
from broker.receipts import PublishOutcome, Receipt
from broker.session import Incoming, MqttSession
from schemas.agent import AgentControl, AgentHeartbeat, AgentState, ControlType
from schemas.audio import AudioPart
from schemas.bridge import BridgeHeartbeat
from schemas.codec import decode, encode
from schemas.conversation import Accepted, Verdict
from schemas.errors import SchemaError
from schemas.failure import FailureCode, JobFailure
from schemas.heartbeat import Heartbeat
from schemas.people import PersonAccepted
from schemas.topics import TopicKind, Topics
from vps_bridge.settings import BridgeSettings

CONNECT_TIMEOUT_S = 10.0  # the handshake of MQTT 5, and of 3.1.1 where that is not understood
POLL_S = 0.2
MAX_VERSION_CHARS = 100
WHAT = "a test of `omi-bridge doctor`"


BeatT = TypeVar("BeatT", bound=Heartbeat)


@dataclass(frozen=True)
class ReceivedBeat(Generic[BeatT]):
    """A heartbeat, and when it was received."""

    beat: BeatT
    received_at: datetime
    is_retained: bool

    @property
    def age_s(self) -> float:
        """Seconds between sending, by the sender's clock, and receiving, by ours."""
        return (self.received_at - self.beat.sent_at).total_seconds()


@dataclass
class BrokerFindings:
    """What was found out over one short connection."""

    url: str
    error: str | None = None
    protocol: str = ""
    max_packet_bytes: int = 0
    refused_filters: dict[str, str] = field(default_factory=dict)
    refused_topics: list[str] = field(default_factory=list)
    """What the bridge has to publish and this user may not."""
    lost_topics: list[str] = field(default_factory=list)
    """What was published, and did not come back although we subscribe to it."""
    version: str = ""
    """What the broker says it is; empty where it does not tell this user."""
    bridges: dict[str, ReceivedBeat[BridgeHeartbeat]] = field(default_factory=dict)
    """The last heartbeat of each instance; a retained one never replaces a live one."""
    agent_instances: dict[str, set[str]] = field(default_factory=dict)
    """The processes that beat as each agent while we listened."""
    agents: dict[str, ReceivedBeat[AgentHeartbeat]] = field(default_factory=dict)
    """The last heartbeat of each agent, by id."""
    kept_topics: list[str] = field(default_factory=list)
    """On which the broker keeps a message that is no heartbeat, or none that can be read."""


def probe_broker_as_bridge(settings: BridgeSettings, wait_s: float) -> BrokerFindings:
    """Connect under a client id of its own, publish messages that concern nobody, and listen for `wait_s` seconds.

    They are of conversations, people and agents that do not exist, one on each kind of topic that the bridge publishes
    on. Where they come back, this user may publish and receive there. Not on `updated`, which a backend may answer, and
    not on the heartbeat's, which the bridge would take for another one: the bridge's own shows that one.
    """
    received: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
    topics, probe_id = Topics(settings.topic_root), f"doctor-{secrets.token_hex(6)}"
    findings = BrokerFindings(settings.broker_url)
    session = MqttSession(settings, client_id=probe_id, on_message=received.put)
    for kind in TopicKind:
        is_large = kind in (TopicKind.AUDIO, TopicKind.PARTS, TopicKind.TURNS)
        session.subscribe(topics.filter(kind, conversation_id=probe_id if is_large else "+"))
    session.subscribe(BROKER_VERSION)
    session.start()
    try:
        session.wait_connected(CONNECT_TIMEOUT_S)
        findings.protocol, findings.max_packet_bytes = session.protocol, session.max_packet_bytes
        refused = session.refused_filters.items()
        findings.refused_filters = {name: why for name, why in refused if name != BROKER_VERSION}
        harmless = _harmless(topics, probe_id, settings.bridge_id)
        sent = {topic: session.publish(topic, payload) for topic, payload in harmless.items()}
        _listen(findings, received, topics, sent, time.monotonic() + wait_s)
    except BrokerError as error:
        findings.error = str(error)
    finally:
        session.stop()
    return findings


def _harmless(topics: Topics, probe_id: str, bridge_id: str) -> dict[str, bytes]:
    """Return messages the bridge may send, to agents, conversations and people that are not there."""
    control = AgentControl(type=ControlType.CANCEL, ledger_id=probe_id, job_id=probe_id, reason=WHAT)
    receipt = Accepted(conversation_id=probe_id, event_id=probe_id, verdict=Verdict.DISCARDED, message=WHAT)
    person = PersonAccepted(person_id=probe_id, event_id=probe_id, verdict=Verdict.DISCARDED, message=WHAT)
    failure = JobFailure(conversation_id=probe_id, code=FailureCode.CONVERSATION_DELETED, message=WHAT)
    part = AudioPart(
        job_id=probe_id,
        lease_id=probe_id,
        chunk_id=probe_id,
        byte_offset=0,
        total_bytes=1,
        part_sha256=hashlib.sha256(b"x").hexdigest(),
        audio=b"x",
    )
    return {
        topics.control(probe_id): encode(control),
        topics.accepted(probe_id): encode(receipt),
        topics.person_accepted(probe_id): encode(person),
        topics.failure(probe_id, bridge_id): encode(failure),
        topics.parts(probe_id, probe_id): encode(part),
    }


def _listen(
    findings: BrokerFindings,
    received: queue.SimpleQueue[Incoming],
    topics: Topics,
    sent: dict[str, Receipt],
    deadline_s: float,
) -> None:
    """Record heartbeats and what comes back of our own until the deadline: the next live beats are wanted too."""
    came_back: set[str] = set()
    while time.monotonic() < deadline_s:
        with suppress(queue.Empty):
            incoming = received.get(timeout=POLL_S)
            came_back.add(incoming.topic)
            _record(findings, incoming, topics)
    findings.refused_topics = [topic for topic, receipt in sent.items() if receipt.outcome is PublishOutcome.REFUSED]
    findings.lost_topics = [topic for topic in sent if topic not in came_back | set(findings.refused_topics)]


def _record(findings: BrokerFindings, incoming: Incoming, topics: Topics) -> None:
    now = datetime.now(UTC)
    if incoming.topic == BROKER_VERSION:
        findings.version = incoming.payload.decode(errors="replace")[:MAX_VERSION_CHARS]
        return
    try:
        match topics.parse(incoming.topic).kind:
            case TopicKind.BRIDGE_HEARTBEAT:
                bridge = decode(BridgeHeartbeat, incoming.payload)
                if not incoming.retain or bridge.instance_id not in findings.bridges:
                    findings.bridges[bridge.instance_id] = ReceivedBeat(bridge, now, incoming.retain)
            case TopicKind.AGENT_HEARTBEAT:
                agent = decode(AgentHeartbeat, incoming.payload)
                if not incoming.retain and agent.state is not AgentState.OFFLINE:
                    findings.agent_instances.setdefault(agent.agent_id, set()).add(agent.instance_id)
                if not incoming.retain or agent.agent_id not in findings.agents:
                    findings.agents[agent.agent_id] = ReceivedBeat(agent, now, incoming.retain)
            case _ if incoming.retain:
                findings.kept_topics.append(incoming.topic)
    except SchemaError:  # a message that this version cannot read is skipped
        if incoming.retain:
            findings.kept_topics.append(incoming.topic)
