"""Two bridges on one root: the younger stops, whatever the wall clocks of the two machines say."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.bridge import BridgeHeartbeat
from schemas.codec import encode
from tests.brokers import RunningBroker
from tests.faults.programs import faketime_library, faketime_settings
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, run_bridge, wait_until

HOUR = timedelta(hours=1)


def bridge_publishes(broker: RunningBroker, beat: BridgeHeartbeat) -> None:
    """Publish a live beat as another bridge would."""
    from broker.session import MqttSession

    session = MqttSession(broker.settings("bridge"), client_id="another", on_message=lambda _message: None)
    session.start()
    session.wait_connected(WAIT_S)
    session.publish(TOPICS.bridge_heartbeat(beat.bridge_id), encode(beat)).wait(WAIT_S)
    session.stop()


def test_a_clock_an_hour_off_stops_neither_the_older_bridge_nor_spares_the_younger(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend) as bridge:
        time.sleep(2.0)  # older by more than a tie
        own = own_backend.seen(BridgeHeartbeat)[-1]
        other = own.model_copy(update={"instance_id": "other", "ledger_id": "another", "uptime_s": 0.0})
        bridge_publishes(own_broker, other.model_copy(update={"sent_at": own.sent_at + HOUR}))
        before = len(own_backend.seen(BridgeHeartbeat))
        wait_until(lambda: len(own_backend.seen(BridgeHeartbeat)) >= before + 3, "the older bridge's next beats")
        older = {"sent_at": own.sent_at, "started_at": own.sent_at, "uptime_s": 3_600.0}
        bridge_publishes(own_broker, other.model_copy(update=older))
        assert bridge.process is not None
        assert bridge.process.wait(WAIT_S) == 3
        assert "already serves omi/v1" in bridge.log_file.read_text()


@pytest.mark.skipif(faketime_library() is None, reason="libfaketime is not installed (apt install faketime)")
def test_the_younger_bridge_stops_though_the_older_ones_clock_was_set_back(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    library, clock = faketime_library(), tmp_path / "clock"
    assert library is not None
    clock.write_text("+0\n")
    faked = faketime_settings(library, clock)
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **faked) as bridge:
        clock.write_text("-3600\n")

        def is_set_back() -> bool:
            return own_backend.seen(BridgeHeartbeat)[-1].sent_at < datetime.now(UTC) - HOUR / 2

        wait_until(is_set_back, "a beat by the clock that was set back")
        time.sleep(2.0)  # older by more than a tie, of which the greater id would stop
        younger = LiveBridge(own_broker, tmp_path_factory.mktemp("other"))
        done = subprocess.run(
            [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "run"],
            env=younger.environment(),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 3, done.stderr
        assert bridge.process is not None
        assert bridge.process.poll() is None
