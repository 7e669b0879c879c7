"""A machine that falls asleep in the middle of a job: the broker gives the agent up, and the agent comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from schemas.agent import AgentState
from tests.brokers import AGENT_ID, run_mosquitto
from tests.mac_agent.small_bridge import SmallBridge
from tests.mac_agent.sounds import as_wav, tone

ROOT = Path(__file__).parents[2]


def test_a_job_that_was_slept_through_is_finished_after_waking(tmp_path):
    (tmp_path / "behaviour").write_text("wait 3")
    with run_mosquitto(tmp_path) as broker, SmallBridge(broker.settings("bridge")) as bridge:
        environment = broker.environment("agent") | {
            "OMI_AGENT_ID": AGENT_ID,
            "OMI_DATA_DIR": str(tmp_path / "agent"),
            "OMI_HEARTBEAT_S": "0.5",
            "OMI_KEEPALIVE_S": "5",
            "OMI_OFFER_RETRY_S": "1",
            "OMI_WANT_TIMEOUT_S": "1",
            "OMI_TEST_BEHAVIOUR": str(tmp_path / "behaviour"),
            "PYTHONPATH": str(ROOT),
        }
        agent = subprocess.Popen(
            [sys.executable, "-m", "tests.mac_agent.tone_agent"], env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            born = bridge.wait_online()
            bridge.offer("job-1", as_wav(tone(300, 3)))
            bridge.wait_beat(lambda beat: beat.state_of("job-1") == "running")
            os.killpg(agent.pid, signal.SIGSTOP)  # agent and worker, as a sleeping machine stops both
            bridge.wait_beat(lambda beat: beat.message.state is AgentState.OFFLINE)
            asleep = len(bridge.beats.items)
            os.killpg(agent.pid, signal.SIGCONT)
            assert bridge.wait_online(after=asleep).instance_id == born.instance_id
            assert bridge.wait_turns("job-1").turns
        finally:
            os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
