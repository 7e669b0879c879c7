"""Check the broker, the bridge and this agent's rights over a short connection of its own.

`probe_broker` connects as this agent under another client id, listens for heartbeats, and publishes one message: it
asks the bridge for audio of a job that does not exist. The bridge answers that with a cancellation on this agent's
control topic. The answer proves that this agent may publish and subscribe, and that the bridge receives its messages.
A running agent ignores the cancellation, because it does not hold that job.
"""

from __future__ import annotations

import queue
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from broker.check import Check, failed, note, ok
from broker.errors import BrokerError
from broker.receipts import PublishOutcome
from broker.session import Incoming, MqttSession
from mac_agent.weights.verdict import EXACT, STRETCH
from schemas.agent import UP_STATES, AgentControl, AgentHeartbeat, AgentState, AgentWant, ByteRange, ControlType
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.errors import SchemaError
from schemas.topics import TopicKind, Topics
from schemas.turns import EngineDescription

if TYPE_CHECKING:
    from broker.receipts import Receipt
    from mac_agent.settings import AgentSettings

CONNECT_TIMEOUT_S = 10.0  # the handshake of MQTT 5, and of 3.1.1 where that is not understood
POLL_S = 0.2
SKEW_LIMIT_S = 5.0
STALE_S = 30.0  # three heartbeat intervals, of the bridge or of an agent
MIN_PACKET_BYTES = 300_000  # one part of audio, as it is encoded in a message


@dataclass(frozen=True)
class ReceivedHeartbeat:
    """A heartbeat of a bridge, and when it was received."""

    heartbeat: BridgeHeartbeat
    received_at: datetime
    is_retained: bool

    @property
    def age_s(self) -> float:
        """Seconds between sending, by the bridge's clock, and receiving, by our clock."""
        return (self.received_at - self.heartbeat.sent_at).total_seconds()


@dataclass
class BrokerProbe:
    """What was found out over one short connection to the broker."""

    url: str
    error: str | None = None
    protocol: str = ""
    max_packet_bytes: int = 0
    refused_filters: dict[str, str] = field(default_factory=dict)
    want: PublishOutcome | None = None
    """How publishing our request for audio ended; None while that is not known."""
    was_answered: bool = False
    """Whether the bridge answered our request for audio."""
    bridge: ReceivedHeartbeat | None = None
    """The last heartbeat of a bridge; a retained one never replaces a live one."""
    agent: AgentHeartbeat | None = None
    """The last heartbeat of this agent."""
    agent_age_s: float = 0.0
    """How long ago it was sent, where the broker only kept it: both times are of this machine."""
    instances: set[str] = field(default_factory=set)
    """The processes that beat as this agent while we listened."""


def probe_broker(settings: AgentSettings, wait_s: float) -> BrokerProbe:
    """Connect as this agent under another client id, and listen for at most `wait_s` seconds; see the module."""
    received: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
    topics, probe_id = Topics(settings.topic_root), f"doctor-{secrets.token_hex(6)}"
    probe = BrokerProbe(settings.broker_url)
    session = MqttSession(settings, client_id=f"{settings.agent_id}-{probe_id}", on_message=received.put)
    for filter_ in (
        topics.control(settings.agent_id),
        topics.filter(TopicKind.PARTS, sender_id=settings.agent_id),
        topics.filter(TopicKind.BRIDGE_HEARTBEAT),
        topics.agent_heartbeat(settings.agent_id),
    ):
        session.subscribe(filter_)
    session.start()
    try:
        session.wait_connected(CONNECT_TIMEOUT_S)
        probe.protocol, probe.max_packet_bytes = session.protocol, session.max_packet_bytes
        probe.refused_filters = dict(session.refused_filters)
        want = AgentWant(job_id=probe_id, lease_id=probe_id, chunk_id=probe_id, ranges=(ByteRange(start=0, end=1),))
        receipt = session.publish(topics.want(settings.agent_id), encode(want))
        _listen(probe, received, receipt, probe_id, time.monotonic() + wait_s, topics)
    except BrokerError as error:
        probe.error = str(error)
    finally:
        session.stop()
    return probe


def check_broker(probe: BrokerProbe, agent_id: str) -> list[Check]:
    """Check the connection, the packet limit and the rights to publish and subscribe."""
    if probe.error is not None:
        return [failed("broker", probe.error)]
    found = f"{probe.url}, MQTT {probe.protocol}, packets of up to {probe.max_packet_bytes:,} bytes"
    remedy = "Raise max_packet_size of the broker, or lower OMI_PART_BYTES."
    small = probe.max_packet_bytes < MIN_PACKET_BYTES
    checks = [failed("broker", found, remedy) if small else ok("broker", found)]
    if probe.refused_filters or probe.want is PublishOutcome.REFUSED:
        refused = [
            *probe.refused_filters,
            *(["publishing to our own want topic"] if probe.want is PublishOutcome.REFUSED else []),
        ]
        remedy = "Give this agent its own user: omi-broker add-agent DIR OMI_AGENT_ID; the two ids must be equal."
        checks.append(failed("topics", f"the broker refuses {', '.join(refused)}", remedy))
    elif probe.was_answered:
        checks.append(ok("topics", "the bridge heard a question of this agent, and the agent its answer"))
    elif probe.bridge is not None and agent_id in probe.bridge.heartbeat.agents_waiting:
        checks.append(note("topics", "nothing was refused; the bridge answers once this agent is allowed"))
    elif not _agent_runs(probe):
        remedy = f"On the bridge's machine: omi-bridge agents allow {agent_id}. Then start the agent, and ask again."
        checks.append(note("topics", "nothing was refused; the bridge answers only agents that it allows", remedy))
    elif probe.bridge is not None and probe.bridge.heartbeat.state is BridgeState.ONLINE:
        remedy = (
            "Does the user of this agent belong to another OMI_AGENT_ID? A broker may drop what it forbids in silence."
        )
        checks.append(failed("topics", "the bridge did not answer a question of this agent", remedy))
    else:
        checks.append(note("topics", "nothing was refused; only a bridge's answer would prove more"))
    return checks


def check_bridge(probe: BrokerProbe, agent_id: str) -> list[Check]:
    """Check whether the bridge is online, whether it allows this agent, and how far the two clocks are apart."""
    if probe.error is not None:
        return []
    received = probe.bridge
    if received is None:
        return [failed("bridge", "no heartbeat of a bridge", "Start it on the VPS (omi-bridge run), on this broker.")]
    name, heartbeat = f"{received.heartbeat.bridge_id}", received.heartbeat
    if heartbeat.state is not BridgeState.ONLINE:
        return [failed("bridge", f"{name} is {heartbeat.state.value}", "Start it on the VPS: omi-bridge run")]
    if received.is_retained and abs(received.age_s) > STALE_S:
        remedy = "Look at the bridge on the VPS (journalctl -u omi-bridge), and at both clocks."
        when = "ago" if received.age_s > 0 else "ahead of our clock"
        return [failed("bridge", f"{name} was last heard {abs(received.age_s):.0f} s {when}", remedy)]
    found = f"{name} is online, {heartbeat.agents_live} agents live"
    checks = [ok("bridge", found)]
    if not heartbeat.accepting:
        checks = [note("bridge", f"{found}; it takes no audio now", "On the VPS: omi-bridge doctor says why.")]
    return [*checks, _check_allowed(probe, heartbeat, agent_id), _check_clock(received)]


def check_agent(probe: BrokerProbe) -> list[Check]:
    """Check the last heartbeat of this agent, if it is running."""
    heartbeat = probe.agent
    if heartbeat is None or heartbeat.state in (AgentState.STOPPED, AgentState.OFFLINE):
        return [note("agent", "not running", "omi-agent run, or omi-agent install")] if probe.error is None else []
    if probe.agent_age_s > STALE_S:
        remedy = (
            "omi-agent logs says why. Start it again: one that runs does not read what `omi-agent join` wrote since."
        )
        return [failed("agent", f"{heartbeat.state.value} when last heard, {probe.agent_age_s:.0f} s ago", remedy)]
    engine = _describe_engine(heartbeat.engine) if heartbeat.engine else "no engine loaded"
    found = f"{heartbeat.state.value}, {engine}, {heartbeat.jobs_done} jobs done, {heartbeat.jobs_failed} failed"
    if len(probe.instances) > 1:
        remedy = "Stop one of them, or give it an OMI_AGENT_ID and a user of its own: omi-broker add-agent DIR OTHER-ID"
        return [failed("agent", f"{found}; {len(probe.instances)} processes beat under this id", remedy)]
    if heartbeat.last_error:
        return [
            note("agent", f"{found}; last error: {heartbeat.last_error}", "omi-agent logs; omi-agent doctor --deep")
        ]
    return [ok("agent", found)]


def _describe_engine(engine: EngineDescription) -> str:
    """Name engine and device, and the mode where there are two: that of the others, `offline`, reads as a fault."""
    mode = f" {engine.mode}" if engine.mode in (EXACT, STRETCH) else ""
    return f"{engine.name}{mode} on {engine.device}"


def _check_allowed(probe: BrokerProbe, heartbeat: BridgeHeartbeat, agent_id: str) -> Check:
    if agent_id in heartbeat.agents_waiting:
        return failed("allowed", f"{agent_id} waits to be allowed", f"On the VPS: omi-bridge agents allow {agent_id}")
    if not _agent_runs(probe):
        return note("allowed", "the bridge tells only of agents that run", "Start the agent, then ask again.")
    return ok("allowed", f"{agent_id} may work for {heartbeat.bridge_id}")


def _agent_runs(probe: BrokerProbe) -> bool:
    """Whether the bridge hears beats of this agent, and lists it as waiting where nobody has allowed it."""
    return probe.agent is not None and probe.agent.state in UP_STATES and probe.agent_age_s <= STALE_S


def _check_clock(received: ReceivedHeartbeat) -> Check:
    if received.is_retained:
        return note("clock", f"no live heartbeat to compare with; the last is {received.age_s:.0f} s old by our clock")
    if abs(received.age_s) > SKEW_LIMIT_S:
        remedy = (
            "Set the wrong one: System Settings > General > Date & Time here, `timedatectl set-ntp true` on the VPS."
        )
        return failed("clock", f"ours is {received.age_s:+.1f} s beside the bridge's", remedy)
    return ok("clock", f"{received.age_s:+.1f} s beside the bridge's")


def _listen(
    probe: BrokerProbe,
    received: queue.SimpleQueue[Incoming],
    receipt: Receipt,
    probe_id: str,
    deadline_s: float,
    topics: Topics,
) -> None:
    """Record messages until everything is known that can be known, or the deadline has passed."""
    while time.monotonic() < deadline_s:
        probe.want = receipt.outcome
        is_live = probe.bridge is not None and not probe.bridge.is_retained
        if is_live and probe.was_answered and probe.want is not None:
            return
        with suppress(queue.Empty):
            _record(probe, received.get(timeout=POLL_S), probe_id, topics)


def _record(probe: BrokerProbe, incoming: Incoming, probe_id: str, topics: Topics) -> None:
    with suppress(SchemaError):  # a message that this version cannot read is skipped
        match topics.parse(incoming.topic).kind:
            case TopicKind.BRIDGE_HEARTBEAT:
                received = ReceivedHeartbeat(
                    decode(BridgeHeartbeat, incoming.payload), datetime.now(UTC), incoming.retain
                )
                known = probe.bridge
                if known is None or known.is_retained or not received.is_retained:
                    probe.bridge = received
            case TopicKind.AGENT_HEARTBEAT:
                probe.agent = beat = decode(AgentHeartbeat, incoming.payload)
                age_s = (datetime.now(UTC) - beat.sent_at).total_seconds()
                probe.agent_age_s = age_s if incoming.retain else 0.0
                if not incoming.retain and beat.state is not AgentState.OFFLINE:
                    probe.instances.add(beat.instance_id)
            case TopicKind.CONTROL:
                control = decode(AgentControl, incoming.payload)
                if control.type is ControlType.CANCEL and control.job_id == probe_id:
                    probe.was_answered = True
