"""Who may say and hear what: every user on every topic of a Mosquitto that we set up, both ways."""

import getpass
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.access import BROKER_VERSION
from broker.cli import app
from broker.receipts import PublishOutcome
from broker.session import Incoming, MqttSession
from broker.users import read_users
from schemas.topics import TopicKind, Topics
from tests.brokers import RunningBroker, free_port, require_program
from tests.inbox import MessageLog

TOPICS = Topics()
ACK_S = 120.0
USERS = ("bridge", "backend", "watch", "agent:first", "agent:second")
TARGETS = {
    "events": TOPICS.events("c1"),
    "audio": TOPICS.audio("c1"),
    "accepted": TOPICS.accepted("c1"),
    "updated": TOPICS.updated("c1"),
    **{
        f"{name} {sender}": topic
        for sender in ("first", "second")
        for name, topic in {
            "parts": TOPICS.parts("c1", sender),
            "turns": TOPICS.turns("c1", sender),
            "failure": TOPICS.failure("c1", sender),
            "want": TOPICS.want(sender),
            "control": TOPICS.control(sender),
            "agent beat": TOPICS.agent_heartbeat(sender),
        }.items()
    },
    "person events": TOPICS.person_events("anna"),
    "person accepted": TOPICS.person_accepted("anna"),
    "failure bridge": TOPICS.failure("c1", "bridge"),
    "bridge beat bridge": TOPICS.bridge_heartbeat("bridge"),
    "bridge beat other": TOPICS.bridge_heartbeat("other"),
    "another root": "other/v1/conversations/c1/audio",
    "below the root": f"{TOPICS.root}/anything",
}
BOTH_PARTS = {"parts first", "parts second", "control first", "control second"}
WRITES = {
    "bridge": {"accepted", "updated", "person accepted", *BOTH_PARTS, "failure bridge", "bridge beat bridge"},
    "backend": {"events", "audio", "person events"},
    "watch": set(),
    "agent:first": {"turns first", "failure first", "want first", "agent beat first"},
    "agent:second": {"turns second", "failure second", "want second", "agent beat second"},
}
BRIDGE_BEATS = {"bridge beat bridge", "bridge beat other"}
READS = {
    "bridge": set(TARGETS) - {"another root"},
    "backend": {"accepted", "updated", "person accepted", *BRIDGE_BEATS},
    "watch": {
        "accepted",
        "updated",
        "failure bridge",
        *BRIDGE_BEATS,
        *(
            f"{name} {sender}"
            for name in ("failure", "want", "control", "agent beat")
            for sender in ("first", "second")
        ),
    },
    "agent:first": {"parts first", "control first", "agent beat first", *BRIDGE_BEATS},
    "agent:second": {"parts second", "control second", "agent beat second", *BRIDGE_BEATS},
}

Connect = Callable[..., MqttSession]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """As `omi-broker init` sets one up that others than this machine reach: with TLS and a CA of its own."""
    program, port = require_program("mosquitto", "mosquitto"), free_port()
    home = tmp_path_factory.mktemp("rights") / "omi"
    words = ["init", str(home), "--tls", "--port", str(port), "--agent", "first", "--agent", "second"]
    done = CliRunner().invoke(app, words, env={"OMI_CONFIG": "", "NO_COLOR": "1", "TERM": "dumb"})
    assert done.exit_code == 0, done.output
    own = home.parent / "own.conf"  # it must not become another user, who could not read these files
    own.write_text(f"{(home / 'mosquitto.conf').read_text()}\nuser {getpass.getuser()}\n")
    users, ca_file = read_users(home / "users.json"), home / "tls" / "ca.pem"
    command = (program, "-c", str(own))
    running = RunningBroker(f"mqtts://127.0.0.1:{port}", users, home.parent / "log", "5", command, port, ca_file)
    running.start()
    yield running
    running.kill()


@pytest.mark.parametrize("user", USERS)
def test_a_user_may_publish_what_it_needs_and_nothing_else(user: str, broker: RunningBroker, connect: Connect) -> None:
    session = connect(broker, user)
    receipts = {name: session.publish(topic, b"x") for name, topic in TARGETS.items()}
    outcomes = {name: receipt.wait(ACK_S) for name, receipt in receipts.items()}
    assert {name for name, outcome in outcomes.items() if outcome is not PublishOutcome.REFUSED} == WRITES[user]


@pytest.mark.parametrize("retain", [False, True], ids=["live", "retained"])
@pytest.mark.parametrize("user", USERS)
def test_a_user_hears_what_it_needs_and_nothing_else(
    user: str, retain: bool, broker: RunningBroker, connect: Connect
) -> None:
    """Whatever it subscribes to: everything, one kind, or one topic."""
    heard: MessageLog[Incoming] = MessageLog()
    mark = f"{user} {retain}".encode()
    listening = ["#", f"{TOPICS.root}/#", "+/v1/+/+/+", *TARGETS.values(), *(TOPICS.filter(kind) for kind in TopicKind)]
    speakers = {name: connect(broker, name) for name in USERS}
    if retain:
        say_everything(speakers, mark, retain=True)
    connect(broker, user, *listening, on_message=heard.put)
    if not retain:
        say_everything(speakers, mark, retain=False)
    expected = {TARGETS[name] for name in READS[user] & set().union(*WRITES.values())}
    for topic in expected:
        heard.wait_for(partial(is_message, topic, mark), ACK_S)
    time.sleep(0.3)  # what must not come had as long to come as what did
    assert {message.topic for message in heard.items if message.payload == mark} == expected


def test_what_broker_it_is_only_the_bridge_is_told(broker: RunningBroker, connect: Connect) -> None:
    heard: dict[str, MessageLog[Incoming]] = {user: MessageLog() for user in USERS}
    for user in reversed(USERS):  # the bridge last: once it has heard, nobody else will
        connect(broker, user, BROKER_VERSION, "$SYS/#", on_message=heard[user].put)
    version = heard["bridge"].wait_for(lambda message: message.topic == BROKER_VERSION, ACK_S)
    assert version.payload.startswith(b"mosquitto version ")
    assert {user for user in USERS if heard[user].items} == {"bridge"}
    assert {message.topic for message in heard["bridge"].items} == {BROKER_VERSION}


def is_message(topic: str, payload: bytes, message: Incoming) -> bool:
    return (message.topic, message.payload) == (topic, payload)


def say_everything(speakers: dict[str, MqttSession], mark: bytes, **options: Any) -> None:
    for user, session in speakers.items():
        receipts = [session.publish(TARGETS[name], mark, **options) for name in WRITES[user]]
        assert PublishOutcome.REFUSED not in {receipt.wait(ACK_S) for receipt in receipts}


def test_every_kind_of_topic_is_in_the_matrix() -> None:
    outside = {TARGETS["another root"], TARGETS["below the root"]}
    assert {TOPICS.parse(topic).kind for topic in set(TARGETS.values()) - outside} == set(TopicKind)


def test_only_backend_and_bridge_speak_of_people() -> None:
    """The matrix above says so; this keeps it from being edited away."""
    for name, hears, speaks in (("person events", {"bridge"}, "backend"), ("person accepted", None, "bridge")):
        assert {user for user in USERS if name in READS[user]} == (hears or {"bridge", "backend"})
        assert [user for user in USERS if name in WRITES[user]] == [speaks]


def test_only_bridge_onlooker_and_the_agent_itself_hear_an_agents_beat() -> None:
    """The matrix above says so of `first`; this keeps it from being edited away."""
    hears = {user for user in USERS if "agent beat first" in READS[user]}
    assert hears == {"bridge", "watch", "agent:first"}
    for user, other in itertools.permutations(USERS, 2):
        assert not WRITES[user] & WRITES[other], f"{user} and {other} may say the same"
