"""Whoever floods the broker, allowed or not, delays nobody else's receipts and loses nobody else's messages."""

from collections.abc import Iterator

import pytest

from schemas.bridge import BridgeHeartbeat
from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType
from tests.attacks.hostile import Message, flooding, slowest_receipt_s
from tests.brokers import RunningBroker
from tests.pace import paced
from tests.vps_bridge.answering_agent import AnsweringAgent
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import make_wav

NOT_OURS = b"\x00 nothing of ours"


@pytest.fixture(scope="module")
def bridge(broker: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveBridge]:
    with run_bridge(broker, tmp_path_factory.mktemp("data"), backend) as running:
        running.allow("first", "second")
        yield running


def agent_messages(agent_id: str) -> list[Message]:
    """What an agent may publish at the broker, none of it readable."""
    topics = (
        TOPICS.want(agent_id),
        TOPICS.agent_heartbeat(agent_id),
        TOPICS.turns("RANDOM", agent_id),
        TOPICS.failure("RANDOM", agent_id),
    )
    return [(topic, NOT_OURS) for topic in topics]


def events(conversation_id: str) -> list[Message]:
    event = ConversationEvent(event_id="e1", type=EventType.STARTED)
    return [(TOPICS.events(conversation_id), encode(event))]


def chunks(conversation_id: str) -> list[Message]:
    return [(TOPICS.audio(conversation_id), make_wav(0.05))]  # a bare file is new each time


FLOODS = {
    "an agent that is not allowed": ("agent:stranger", agent_messages("stranger")),
    "an allowed agent": ("agent:second", agent_messages("second")),
    "events of one conversation": ("backend", events("flooded")),
    "tiny chunks of one conversation": ("backend", chunks("drops")),
    "events of ever new conversations": ("backend", events("RANDOM")),
    "tiny chunks of ever new conversations": ("backend", chunks("RANDOM")),
}
# No topic says who publishes: an honest conversation that begins during such a flood is one new id among its many.
OF_NEW_CONVERSATIONS = ("events of ever new conversations", "tiny chunks of ever new conversations")


# The others keep a processor busy for as long as they last: they are part of `make acceptance`.
QUICK, *OTHERS = FLOODS


@pytest.mark.parametrize("kind", [QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)])
def test_a_flood_delays_nobody_else(broker: RunningBroker, backend: Backend, bridge: LiveBridge, kind: str) -> None:
    role, messages = FLOODS[kind]
    name = f"honest-{list(FLOODS).index(kind)}"
    backend.event(name, EventType.STARTED)
    with AnsweringAgent(broker, "first") as agent, flooding(broker, role, messages):
        slowest_receipt_s(broker, name)
        backend.event(name, EventType.COMPLETED, chunks=8)
        offer = agent.wait_offer(name)
        agent.settled.wait_for(lambda word: word.lease_id == offer.lease_id)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOODS)
def test_on_a_quiet_machine_no_receipt_waits_longer_than_two_seconds(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, kind: str
) -> None:
    role, messages = FLOODS[kind]
    name = f"timed-{list(FLOODS).index(kind)}"
    backend.event(name, EventType.STARTED)
    with flooding(broker, role, messages):
        assert slowest_receipt_s(broker, name) <= paced(2.0)
        if kind not in OF_NEW_CONVERSATIONS:
            assert slowest_receipt_s(broker, f"{name}-new") <= paced(2.0)


def test_what_was_dropped_is_counted_and_logged_in_few_lines(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    before = bridge.log_file.stat().st_size
    with flooding(broker, "agent:stranger", agent_messages("stranger")):
        wait_until(lambda: backend.seen(BridgeHeartbeat)[-1].messages_dropped > 1_000, "the count in the heartbeat")
    with flooding(broker, "agent:second", agent_messages("second"), rate_hz=500):
        slowest_receipt_s(broker, "beside-lies")
    lines = [
        line
        for line in bridge.log_file.read_bytes()[before:].decode().splitlines()
        if '"stranger"' in line or '"second"' in line
    ]
    assert len(lines) < 500, "bad messages fill the log"


@pytest.mark.slow
def test_after_a_restart_it_is_so_too(broker: RunningBroker, backend: Backend, bridge: LiveBridge) -> None:
    backend.event("begun", EventType.STARTED)
    with (
        flooding(broker, "agent:stranger", agent_messages("stranger"), rate_hz=1_000),
        flooding(broker, "backend", events("RANDOM"), rate_hz=1_000),
    ):
        assert bridge.stop() == 0
        bridge.start(backend)
        slowest_receipt_s(broker, "begun")
