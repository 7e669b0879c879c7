"""A cluster of NATS servers: who gets in, what a change costs those who are connected, and what it keeps of audio."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broker.cli import app
from broker.errors import BrokerRefused, NotConnected
from broker.invitation import read_invitation_file
from broker.join import accept_invitation
from broker.session import Incoming, MqttSession
from broker.settings import load_settings
from mac_agent.settings import AgentSettings
from schemas.agent import AgentControl
from schemas.conversation import ConversationUpdated, EventType
from schemas.topics import TopicKind, Topics
from tests.clusters import NAMES, RunningCluster, run_cluster
from tests.inbox import WAIT_S, MessageLog, eventually
from tests.jetstream import Streams, files_with, leave_plain, let_look
from tests.vps_bridge.live_bridge import CALL_TURNS, STARTED_AT, Backend, call_segments, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav

TOPICS = Topics()
ACK_S = 120.0
Connect = Callable[..., MqttSession]


def omi_broker(*words: str | Path) -> Result:
    environment = {"OMI_CONFIG": "", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def make_readable(config: dict[str, Any]) -> None:
    """Let the tests read what is in the streams and on the disk."""
    let_look(config)
    leave_plain(config)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with run_cluster(tmp_path_factory.mktemp("cluster"), tls=True) as running:
        yield running


@pytest.fixture(scope="module")
def readable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with run_cluster(tmp_path_factory.mktemp("readable"), change=make_readable) as running:
        yield running


def test_an_invitation_names_every_server_and_what_this_broker_needs(cluster, tmp_path):
    path = cluster.directory / "invitations" / "agent-first"
    invitation = read_invitation_file(path)
    assert invitation.url == ",".join(cluster.url_of(name) for name in NAMES)
    assert invitation.ca == cluster.ca_file.read_text()
    config = tmp_path / "config.toml"
    accept_invitation(invitation, config, table="agent", id_setting="agent_id")
    settings = load_settings(AgentSettings, flags={}, config_file=config).settings
    assert (settings.mqtt_version, settings.mqtt_qos, len(settings.addresses)) == ("3.1.1", 0, 3)
    session = MqttSession(settings, client_id=f"joined-{secrets.token_hex(4)}", on_message=lambda _: None)
    session.start()
    session.wait_connected(WAIT_S)
    session.stop()


def test_a_cluster_without_its_users_gets_no_further_ones_until_all_are_made_anew(tmp_path):
    nodes = [
        word
        for place, port in zip("abc", (18001, 18003, 18005), strict=True)
        for word in ("--node", f"{place}=127.0.0.1:{port}/{port + 1}")
    ]
    set_up = ["nats", str(tmp_path / "home"), *nodes, "--agent", "my-mac"]
    assert CliRunner().invoke(app, set_up).exit_code == 0
    (tmp_path / "home" / "users.json").unlink()
    refused = CliRunner().invoke(app, ["add-agent", str(tmp_path / "home"), "second"])
    assert (refused.exit_code, "users.json: is gone" in refused.output) == (1, True)
    made = CliRunner().invoke(app, set_up)
    assert "every program has to join again" in made.output
    assert "agent-my-mac" in made.output


@pytest.mark.slow
def test_check_tells_of_every_user_at_every_server_and_of_one_that_is_down(cluster):
    done = omi_broker("check", cluster.directory)
    assert done.exit_code == 0, done.output
    for name in NAMES:
        for role in ("bridge", "backend", "watch", "agent:first"):
            assert f"{name} user {role}" in done.output
    assert "3 of 3 servers answer" in done.output
    cluster.kill("c")
    try:
        # While the others choose a new leader one of them may not answer either.
        wait_until(lambda: "2 of 3 servers answer" in omi_broker("check", cluster.directory).output, "a new leader")
        done = omi_broker("check", cluster.directory)
        assert done.exit_code == 1
        assert "c broker: no connection" in done.output
        assert "2 of 3 servers answer" in done.output
    finally:
        cluster.start("c")
        cluster.wait_ready("c")


def test_users_come_and_passwords_change_by_a_reload_that_cuts_nobody_else_off(cluster, connect):
    heard: MessageLog[Incoming] = MessageLog()
    bridges = [connect(cluster, "bridge", settings={"broker_url": cluster.url_of(name)}) for name in NAMES]
    listener = connect(cluster, "bridge", TOPICS.filter(TopicKind.WANT), on_message=heard.put)
    assert omi_broker("add-agent", cluster.directory, "third").exit_code == 0
    stranger = connect(cluster, "agent:third", wait=False)
    with pytest.raises(BrokerRefused):
        stranger.wait_connected(WAIT_S)
    cluster.reload()
    eventually(lambda: stranger.connected)
    stranger.publish(TOPICS.want("third"), b"here").wait(ACK_S)
    heard.wait_for(lambda message: message.payload == b"here", ACK_S)
    old = cluster.users["agent:third"].password
    done = omi_broker("rotate", cluster.directory, "third")
    assert done.exit_code == 0
    assert old not in done.output
    assert cluster.users["agent:third"].password not in done.output
    cluster.reload()
    eventually(lambda: not stranger.connected)
    connect(cluster, "agent:third")
    for session in (*bridges, listener):
        assert session.connected
        assert session.counters.reconnects == 0


@pytest.mark.slow
def test_new_certificates_are_taken_one_server_after_the_other(cluster, connect):
    session = connect(cluster, "bridge")
    ca, before = cluster.ca_file.read_bytes(), [serial_number(cluster, name) for name in NAMES]
    done = omi_broker("rotate", cluster.directory, "--certificates")
    assert "one by one" in done.output
    assert cluster.ca_file.read_bytes() == ca
    for name in NAMES:
        cluster.stop(name)
        cluster.start(name)
        cluster.wait_ready(name)
    assert not set(before) & {serial_number(cluster, name) for name in NAMES}
    session.wait_connected(WAIT_S)


def serial_number(cluster: RunningCluster, name: str) -> object:
    context = ssl.create_default_context(cafile=str(cluster.ca_file))
    with (
        socket.create_connection(("127.0.0.1", cluster.node(name).port), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as encrypted,
    ):
        return (encrypted.getpeercert() or {})["serialNumber"]


@pytest.mark.slow
def test_a_client_goes_on_at_another_server_when_its_own_is_killed(readable, connect):
    heard: MessageLog[Incoming] = MessageLog()
    listener = connect(readable, "bridge", TOPICS.filter(TopicKind.EVENTS), on_message=heard.put)
    backend = connect(readable, "backend")
    for name in NAMES:
        listener.wait_connected(WAIT_S)
        readable.kill(name)
        mark = f"while {name} is down".encode()
        deadline_s = time.monotonic() + WAIT_S
        while mark not in {message.payload for message in heard.items}:
            assert time.monotonic() < deadline_s
            if backend.connected:
                backend.publish(TOPICS.events("c1"), mark).wait(1.0)
            time.sleep(0.1)
        readable.start(name)
        readable.wait_ready(name)
    assert listener.counters.reconnects >= 1
    assert backend.counters.reconnects >= 1


def test_audio_of_a_conversation_is_in_no_stream_and_on_no_disk_of_the_cluster(readable, tmp_path):
    """Looked for while it is sent, once a server was killed meanwhile, and after the conversation is deleted."""
    backend = Backend(readable)
    audio = make_wav(30.0) + secrets.token_bytes(64)
    needle = audio[-64:]
    with (
        run_bridge(readable, tmp_path / "bridge", backend) as bridge,
        ScriptedAgent(readable, "first") as agent,
    ):
        bridge.allow("first")
        backend.event("gone", EventType.STARTED, started_at=STARTED_AT)
        backend.event("gone", EventType.SEGMENTS, segments=call_segments("gone"))
        backend.audio("gone", audio, captured_at=STARTED_AT)
        backend.event("gone", EventType.COMPLETED, chunks=1)
        offer = agent.wait_offer("gone")
        assert needle in b"".join(agent.pull(offer).values())
        assert_nowhere(readable, needle)
        readable.kill("a")
        wait_answered(agent, backend, offer)
        readable.start("a")
        readable.wait_ready("a")
        backend.event("gone", EventType.DELETED)
        eventually(lambda: bridge.is_deleted("gone"))
        assert_nowhere(readable, needle)
    backend.stop()


def wait_answered(agent: ScriptedAgent, backend: Backend, offer: AgentControl) -> None:
    """Answer until the answer counts, as an agent does: a server that was killed took some messages with it."""

    def is_labelled() -> bool:
        with contextlib.suppress(NotConnected):
            agent.answer(offer, CALL_TURNS)
        time.sleep(0.5)
        return bool(backend.seen(ConversationUpdated, "gone"))

    eventually(is_labelled)


def assert_nowhere(cluster: RunningCluster, needle: bytes) -> None:
    for name in NAMES:
        assert files_with(cluster.store(name), needle) == []
        with Streams(cluster, name) as streams:
            assert "$MQTT_msgs" in streams.names()
            found = [stream for stream in streams.names() for _, data in streams.messages(stream) if needle in data]
        assert found == []


def test_what_others_send_with_qos_1_is_seen_by_this_look_and_is_unreadable_as_set_up(cluster, readable, connect):
    """So that the test above can fail, and says why `mqtt_qos` is 0 and the disks are encrypted."""
    needle = secrets.token_bytes(64)
    for running in (cluster, readable):
        kept: MessageLog[Incoming] = MessageLog()
        with_1, audio = {"mqtt_qos": 1}, TOPICS.filter(TopicKind.AUDIO)
        listener = connect(running, "bridge", audio, on_message=kept.put, settings=with_1)
        backend = connect(running, "backend", settings=with_1)
        backend.publish(TOPICS.audio("c1"), needle).wait(ACK_S)
        kept.wait_count(1, ACK_S)
        listener.stop()
    assert any(files_with(readable.store(name), needle) for name in NAMES)
    assert not any(files_with(cluster.store(name), needle) for name in NAMES)
