"""What the broker keeps of messages that nobody can use: the log, the heartbeat and doctor name what clears it."""

import json

from broker.session import MqttSession
from schemas.bridge import BridgeHeartbeat
from tests.brokers import RunningBroker, require_program
from tests.clearing import clear_as_told
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, wait_until
from tests.vps_bridge.scripted_agent import make_wav

REFUSED = "retained_input_ignored"


def restart(bridge: LiveBridge, backend: Backend) -> None:
    bridge.stop()
    bridge.start(backend)
    backend.audio("marker", make_wav(1.0))  # by its receipt the bridge has read what the broker kept


def test_a_retained_file_is_cleared_by_what_the_log_says_and_nothing_is_left_of_it(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    require_program("mosquitto_pub", "mosquitto-clients")
    own_backend.session.publish(TOPICS.audio("kept"), b"this is no audio", retain=True).wait(WAIT_S)
    wait_until(lambda: own_backend.receipts("kept"), "the refusal of what came live")
    restart(own_bridge, own_backend)
    (line,) = own_bridge.logged(REFUSED, topic=TOPICS.audio("kept"))
    complaints = own_bridge.json("failed")
    clear_as_told(own_broker, line["remedy"])
    wait_until(lambda: own_bridge.logged("retained_message_cleared"), "the end of it")
    own_backend.audio("marker", make_wav(1.0))
    assert own_bridge.json("failed") == complaints, "clearing it is no audio that is refused"
    restart(own_bridge, own_backend)
    assert len(own_bridge.logged(REFUSED)) == 1


def test_a_retained_question_that_nobody_can_read_is_cleared_by_what_heartbeat_and_doctor_say(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    require_program("mosquitto_pub", "mosquitto-clients")
    own_bridge.allow("first")
    agent = MqttSession(own_broker.settings("agent:first"), client_id="rude", on_message=lambda _message: None)
    agent.start()
    agent.wait_connected(WAIT_S)
    agent.publish(TOPICS.want("first"), b"\x00 nothing of ours", retain=True).wait(WAIT_S)
    agent.stop()
    restart(own_bridge, own_backend)

    def last_error() -> str:
        return own_backend.seen(BridgeHeartbeat)[-1].last_error or ""

    wait_until(lambda: "mosquitto_pub" in last_error(), "the command in the heartbeat")
    checks = json.loads(own_bridge.command("doctor", "--json", "--wait", "0.5", check=False).stdout)
    (check,) = [check for check in checks if check["name"] == "retained"]
    assert check["remedy"].removeprefix("Clear it: ") in last_error()
    errors = len(own_bridge.logged("survived"))
    clear_as_told(own_broker, check["remedy"])
    wait_until(lambda: own_bridge.logged("retained_message_cleared"), "the end of it")
    restart(own_bridge, own_backend)
    assert len(own_bridge.logged("survived")) == errors
