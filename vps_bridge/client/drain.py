"""Draining an agent: it finishes what it holds and takes no new job until it is started again."""

from __future__ import annotations

import queue
import secrets
import time

from broker.errors import NotConnected
from broker.receipts import PublishOutcome, Receipt
from broker.session import Incoming, MqttSession
from broker.settings import BrokerSettings
from schemas.agent import AgentControl, AgentHeartbeat, AgentState, ControlType
from schemas.codec import decode, encode
from schemas.errors import SchemaError
from schemas.topics import Topics
from vps_bridge.client.connected import CONNECT_TIMEOUT_S
from vps_bridge.client.errors import ClientError

SAY_AGAIN_S = 2.0  # nothing says whether a control message arrived, but the agent's next beat


class AgentNotDrained(ClientError):
    """An agent was asked to drain and did not say in time that it does."""


class DrainForbidden(ClientError):
    """The broker does not let this user tell agents what to do."""

    def __init__(self, username: str | None) -> None:
        """Name the user to be changed."""
        super().__init__(
            f"the broker does not let user {username or '(none)'} tell agents what to do: use the bridge's user, on "
            "the bridge's machine and with its config file (sudo -u USER), as the service does"
        )


def drain_agent(
    settings: BrokerSettings, ledger_id: str, agent_id: str, *, until_empty: bool, timeout_s: float
) -> AgentHeartbeat:
    """Ask an agent to drain until its heartbeat says so (`until_empty`: until it holds no job); return that beat.

    Args:
        settings: with the bridge's user, who alone may tell agents what to do.
        ledger_id: of the bridge.
        agent_id: the agent.
        until_empty: wait for its last job too.
        timeout_s: for all of it.

    Raises:
        AgentNotDrained: no such beat came in time.
        DrainForbidden: this is not the bridge's user.
        BrokerError: there is no connection.
    """
    topics, seen = Topics(settings.topic_root), queue.SimpleQueue[Incoming]()
    control = encode(AgentControl(type=ControlType.DRAIN, ledger_id=ledger_id))
    session = MqttSession(settings, client_id=f"drain-{secrets.token_hex(8)}", on_message=seen.put)
    session.subscribe(topics.agent_heartbeat(agent_id), qos=0)
    session.start()
    deadline_s, say_s = time.monotonic() + timeout_s, 0.0
    last: AgentHeartbeat | None = None
    said: Receipt | None = None
    try:
        session.wait_connected(CONNECT_TIMEOUT_S)
        while time.monotonic() < deadline_s:
            if time.monotonic() >= say_s and (last is None or last.state is not AgentState.DRAINING):
                say_s = time.monotonic() + SAY_AGAIN_S
                said = _say(session, topics.control(agent_id), control) or said
            last = _next_beat(seen) or last
            if said is not None and said.outcome is PublishOutcome.REFUSED:
                raise DrainForbidden(settings.broker_username)
            if last is not None and _is_drained(last, until_empty=until_empty):
                return last
    finally:
        session.stop()
    raise AgentNotDrained(_explain(agent_id, last))


def _say(session: MqttSession, topic: str, control: bytes) -> Receipt | None:
    try:
        return session.publish(topic, control)
    except NotConnected:
        return None  # said again on the next turn


def _next_beat(seen: queue.SimpleQueue[Incoming]) -> AgentHeartbeat | None:
    """Return a live beat where one comes at once."""
    try:
        incoming = seen.get(timeout=0.2)
        return None if incoming.retain else decode(AgentHeartbeat, incoming.payload)
    except (queue.Empty, SchemaError):
        return None


def _is_drained(beat: AgentHeartbeat, *, until_empty: bool) -> bool:
    # One that is offline may only have lost its connection: what it holds, and that it drains, nobody knows then.
    return beat.state is AgentState.STOPPED or (beat.state is AgentState.DRAINING and not (until_empty and beat.jobs))


def _explain(agent_id: str, last: AgentHeartbeat | None) -> str:
    if last is None:
        return f"agent {agent_id} was not heard: is it running? omi-bridge agents tells when it was heard last"
    if last.state is AgentState.DRAINING:
        return f"agent {agent_id} drains, and still holds {len(last.jobs)} jobs: wait longer with --timeout"
    if last.state is AgentState.OFFLINE:
        return f"agent {agent_id} has lost its connection, and may still work: look there, omi-agent status"
    return f"agent {agent_id} is {last.state} and does not say that it drains: look at its log, omi-agent logs"
