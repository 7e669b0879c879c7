"""The command that is told for a message which a Mosquitto keeps clears it, over TLS too."""

import time
from pathlib import Path

import pytest

from broker.retained import say_clearing
from broker.session import Incoming, MqttSession
from broker.settings import BrokerSettings
from schemas.topics import Topics
from tests.brokers import require_program, run_mosquitto
from tests.clearing import clear_as_told
from tests.inbox import WAIT_S

SETTLED_S = 0.5
TOPICS = Topics()
KEPT = {
    TOPICS.audio("call"): "backend",
    TOPICS.person_events("p-1"): "backend",
    TOPICS.want("studio"): "agent",
    TOPICS.agent_heartbeat("studio"): "agent",
    TOPICS.control("studio"): "bridge",
    TOPICS.bridge_heartbeat("bridge"): "bridge",
}


@pytest.mark.parametrize("has_tls", [False, True])
def test_the_command_that_is_told_clears_what_is_kept(tmp_path: Path, own_ca, connect, *, has_tls: bool) -> None:
    require_program("mosquitto_pub", "mosquitto-clients")
    tls = {"tls": own_ca.server, "ca_file": own_ca.ca_file} if has_tls else {}
    with run_mosquitto(tmp_path, **tls) as broker:
        for topic, user in KEPT.items():
            connect(broker, user).publish(topic, b"nothing of ours", retain=True).wait(WAIT_S)

        def kept() -> set[str]:
            found: list[Incoming] = []
            session = MqttSession(broker.settings("bridge"), client_id="looks", on_message=found.append)
            session.subscribe(f"{TOPICS.root}/#")
            session.start()
            session.wait_connected(WAIT_S)
            time.sleep(SETTLED_S)
            session.stop()
            return {message.topic for message in found if message.retain}

        assert kept() == set(KEPT)
        for topic in KEPT:
            told = say_clearing(broker.settings("bridge"), topic)
            assert broker.users["bridge"].password not in told
            clear_as_told(broker, told)
        assert kept() == set()


def test_a_topic_with_an_id_that_is_none_is_named_too_and_what_a_shell_would_read_is_quoted() -> None:
    told = say_clearing(BrokerSettings(broker_url="mqtts://vps.example:8883"), "omi/v1/bridge/a b;c/heartbeat")
    assert "-h vps.example -p 8883 --tls-use-os-certs -u bridge " in told
    assert "-t 'omi/v1/bridge/a b;c/heartbeat'" in told
