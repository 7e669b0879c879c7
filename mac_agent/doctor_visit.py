"""What a short visit at the broker tells: credentials, limits, rights, the bridge, and the two clocks.

The visit publishes one message: it asks the bridge for audio of a job that does not exist. The bridge answers such a
question with a cancellation on our control topic, so the answer proves both rights and the way there and back. An
agent that runs meanwhile ignores it.
"""

from __future__ import annotations

import queue
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from broker.errors import BrokerError
from broker.receipts import PublishOutcome
from broker.session import Incoming, MqttSession
from mac_agent.doctor import Check, failed, note, ok
from schemas.agent import AgentControl, AgentHeartbeat, AgentState, AgentWant, ByteRange, ControlType
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.errors import SchemaError
from schemas.topics import TopicKind, Topics

if TYPE_CHECKING:
    from broker.receipts import Receipt
    from mac_agent.settings import AgentSettings

CONNECT_TIMEOUT_S = 10.0  # the handshake of MQTT 5, and of 3.1.1 where that is not understood
POLL_S = 0.2
SKEW_LIMIT_S = 5.0
STALE_S = 30.0  # three beats of either program
MIN_PACKET_BYTES = 300_000  # one part of audio and its wrapping


@dataclass(frozen=True)
class BridgeBeat:
    """A heartbeat of a bridge, and when it came."""

    beat: BridgeHeartbeat
    came_at: datetime
    is_retained: bool

    @property
    def age_s(self) -> float:
        """By our clock and its clock, whatever they are worth."""
        return (self.came_at - self.beat.sent_at).total_seconds()


@dataclass
class Visit:
    """What was seen and heard."""

    url: str
    error: str | None = None
    protocol: str = ""
    max_packet_bytes: int = 0
    refused_filters: dict[str, str] = field(default_factory=dict)
    want: PublishOutcome | None = None
    """What the broker said to our question."""
    was_answered: bool = False
    bridge: BridgeBeat | None = None
    """The last heard; a live one wins over a retained one."""
    agent: AgentHeartbeat | None = None


def visit_broker(settings: AgentSettings, wait_s: float) -> Visit:
    """Connect as this agent under another client id, listen and ask, for at most `wait_s` seconds."""
    arrived: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
    topics, probe_id = Topics(settings.topic_root), f"doctor-{secrets.token_hex(6)}"
    visit = Visit(settings.address.url)
    session = MqttSession(settings, client_id=f"{settings.agent_id}-{probe_id}", on_message=arrived.put)
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
        visit.protocol, visit.max_packet_bytes = session.protocol, session.max_packet_bytes
        visit.refused_filters = dict(session.refused_filters)
        want = AgentWant(job_id=probe_id, lease_id=probe_id, chunk_id=probe_id, ranges=(ByteRange(start=0, end=1),))
        receipt = session.publish(topics.want(settings.agent_id), encode(want))
        _listen(visit, arrived, receipt, probe_id, time.monotonic() + wait_s, topics)
    except BrokerError as error:
        visit.error = str(error)
    finally:
        session.stop()
    return visit


def check_broker(visit: Visit) -> list[Check]:
    """Judge connection, limits and rights."""
    if visit.error is not None:
        return [failed("broker", visit.error)]
    found = f"{visit.url}, MQTT {visit.protocol}, packets of up to {visit.max_packet_bytes:,} bytes"
    remedy = "Raise max_packet_size of the broker, or lower OMI_PART_BYTES."
    small = visit.max_packet_bytes < MIN_PACKET_BYTES
    checks = [failed("broker", found, remedy) if small else ok("broker", found)]
    if visit.refused_filters or visit.want is PublishOutcome.REFUSED:
        refused = [
            *visit.refused_filters,
            *(["publishing to our own want topic"] if visit.want is PublishOutcome.REFUSED else []),
        ]
        remedy = (
            "Give this agent its own user: omi-broker mosquitto DIR --agent OMI_AGENT_ID; the two ids must be equal."
        )
        checks.append(failed("topics", f"the broker refuses {', '.join(refused)}", remedy))
    elif visit.was_answered:
        checks.append(ok("topics", "the bridge heard a question of this agent, and the agent its answer"))
    elif visit.bridge is not None and visit.bridge.beat.state is BridgeState.ONLINE:
        remedy = (
            "Does the user of this agent belong to another OMI_AGENT_ID? A broker may drop what it forbids in silence."
        )
        checks.append(failed("topics", "the bridge did not answer a question of this agent", remedy))
    else:
        checks.append(note("topics", "nothing was refused; only a bridge's answer would prove more"))
    return checks


def check_bridge(visit: Visit, agent_id: str) -> list[Check]:
    """Judge the bridge, whether it knows this agent, and the clocks."""
    if visit.error is not None:
        return []
    heard = visit.bridge
    if heard is None:
        return [failed("bridge", "no heartbeat of a bridge", "Start it on the VPS (omi-bridge run), on this broker.")]
    name, beat = f"{heard.beat.bridge_id}", heard.beat
    if beat.state is not BridgeState.ONLINE:
        return [failed("bridge", f"{name} is {beat.state.value}", "Start it on the VPS: omi-bridge run")]
    if heard.is_retained and heard.age_s > STALE_S:
        remedy = "Look at the bridge on the VPS: journalctl -u omi-bridge"
        return [failed("bridge", f"{name} was last heard {heard.age_s:.0f} s ago", remedy)]
    busy = "" if beat.accepting else "; its queue is full, it takes no audio"
    checks = [ok("bridge", f"{name} is online, {beat.agents_live} agents live{busy}")]
    return [*checks, _check_allowed(visit, beat, agent_id), _check_clock(heard)]


def check_agent(visit: Visit) -> list[Check]:
    """Judge what the running agent last said of itself, if one runs."""
    beat = visit.agent
    if beat is None or beat.state in (AgentState.STOPPED, AgentState.OFFLINE):
        return [note("agent", "not running", "omi-agent run, or omi-agent install")] if visit.error is None else []
    engine = f"{beat.engine.name} {beat.engine.mode} on {beat.engine.device}" if beat.engine else "no engine loaded"
    found = f"{beat.state.value}, {engine}, {beat.jobs_done} jobs done, {beat.jobs_failed} failed"
    if beat.last_error:
        return [note("agent", f"{found}; last error: {beat.last_error}")]
    return [ok("agent", found)]


def _check_allowed(visit: Visit, beat: BridgeHeartbeat, agent_id: str) -> Check:
    if agent_id in beat.agents_waiting:
        return failed("allowed", f"{agent_id} waits to be allowed", f"On the VPS: omi-bridge agents allow {agent_id}")
    if visit.agent is None or visit.agent.state not in (AgentState.ONLINE, AgentState.STARTING, AgentState.DRAINING):
        return note("allowed", "the bridge tells only of agents that run", "Start the agent, then ask again.")
    return ok("allowed", f"{agent_id} may work for {beat.bridge_id}")


def _check_clock(heard: BridgeBeat) -> Check:
    if heard.is_retained:
        return note("clock", f"no live heartbeat to compare with; the last is {heard.age_s:.0f} s old by our clock")
    if abs(heard.age_s) > SKEW_LIMIT_S:
        remedy = (
            "Set the wrong one: System Settings > General > Date & Time here, `timedatectl set-ntp true` on the VPS."
        )
        return failed("clock", f"ours is {heard.age_s:+.1f} s beside the bridge's", remedy)
    return ok("clock", f"{heard.age_s:+.1f} s beside the bridge's")


def _listen(
    visit: Visit,
    arrived: queue.SimpleQueue[Incoming],
    receipt: Receipt,
    probe_id: str,
    deadline_s: float,
    topics: Topics,
) -> None:
    """Take what comes until all questions are answered or time is up."""
    while time.monotonic() < deadline_s:
        visit.want = receipt.outcome
        is_live = visit.bridge is not None and not visit.bridge.is_retained
        if is_live and visit.was_answered and visit.want is not None:
            return
        with suppress(queue.Empty):
            _note(visit, arrived.get(timeout=POLL_S), probe_id, topics)


def _note(visit: Visit, incoming: Incoming, probe_id: str, topics: Topics) -> None:
    with suppress(SchemaError):  # a message of another version is not what is looked for
        match topics.parse(incoming.topic).kind:
            case TopicKind.BRIDGE_HEARTBEAT:
                beat = BridgeBeat(decode(BridgeHeartbeat, incoming.payload), datetime.now(UTC), incoming.retain)
                known = visit.bridge
                if known is None or known.is_retained or not beat.is_retained:
                    visit.bridge = beat
            case TopicKind.AGENT_HEARTBEAT:
                visit.agent = decode(AgentHeartbeat, incoming.payload)
            case TopicKind.CONTROL:
                control = decode(AgentControl, incoming.payload)
                if control.type is ControlType.CANCEL and control.job_id == probe_id:
                    visit.was_answered = True
