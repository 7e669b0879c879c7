"""What a step of the wall clock does to what the bridge keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.bridge import BridgeHeartbeat
from tests.brokers import RunningBroker
from tests.faults.programs import faketime_library, faketime_settings
from tests.hand_clock import HandClock
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.clock_steps import ClockSteps

MONTH_S = 30 * 86_400


def test_only_a_step_forward_is_one_and_each_counts_once() -> None:
    wall, running = HandClock(1_000.0), HandClock(50.0)
    steps = ClockSteps(wall=wall, running=running)
    wall.now_s, running.now_s = 1_600.0, 650.0
    assert steps.take() == 0.0
    wall.now_s, running.now_s = 1_600.0 + MONTH_S, 660.0
    assert steps.take() == MONTH_S - 10.0
    steps.note_taken(MONTH_S - 10.0)
    assert steps.began_at == 1_000.0 + MONTH_S - 10.0
    assert steps.take() == 0.0
    wall.now_s = 500.0
    assert steps.take() == 0.0, "set back"
    assert steps.began_at == 500.0


@pytest.mark.skipif(faketime_library() is None, reason="libfaketime is not installed (apt install faketime)")
def test_audio_that_was_accepted_before_the_clock_was_put_right_is_kept_for_its_agent(
    own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> None:
    library, clock = faketime_library(), tmp_path / "clock"
    assert library is not None
    clock.write_text("+0\n")
    options = faketime_settings(library, clock) | {"OMI_KEEP_AUDIO_S": "0"}
    with run_bridge(own_broker, tmp_path / "data", own_backend, **options) as bridge:
        bridge.allow("first")

        def is_set() -> bool:
            return own_backend.seen(BridgeHeartbeat)[-1].sent_at > datetime.now(UTC) + timedelta(days=29)

        with ScriptedAgent(own_broker, "first") as agent:
            own_backend.send_call("early")
            early = agent.wait_offer("early")
            clock.write_text(f"+{MONTH_S}\n")
            wait_until(is_set, "a beat by the clock that was set")
            own_backend.send_call("late")
            agent.answer(agent.wait_offer("late"), CALL_TURNS)
            own_backend.wait_updated("late")
            wait_until(lambda: bridge.logged("audio_unlinked"), "the sweep that follows")
            agent.pull(early)
            agent.answer(early, CALL_TURNS)
            assert own_backend.wait_updated("early").speakers == 2
        assert not own_backend.failures("early")
