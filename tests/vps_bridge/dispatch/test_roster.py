"""What the bridge keeps of agents: for how long they worked on a job, and nothing of those that are long silent."""

from datetime import UTC, datetime

import pytest

from schemas.agent import AgentHeartbeat, AgentState, HeldJob, HeldJobState
from vps_bridge.dispatch.roster import FORGOTTEN_S, AgentRoster

NOW = datetime(2026, 5, 4, tzinfo=UTC)
RUNNING, QUEUED = HeldJobState.RUNNING, HeldJobState.QUEUED


def beat(agent_id: str, instance_id: str = "i1", **jobs: HeldJobState) -> AgentHeartbeat:
    held = tuple(HeldJob(job_id=f"job-{lease_id}", lease_id=lease_id, state=state) for lease_id, state in jobs.items())
    return AgentHeartbeat(
        agent_id=agent_id, instance_id=instance_id, state=AgentState.ONLINE, sent_at=NOW, started_at=NOW, jobs=held
    )


def test_a_job_is_worked_on_between_two_beats_that_both_list_it_as_running() -> None:
    roster = AgentRoster()
    roster.note_beat(beat("mac", long=RUNNING, short=QUEUED), 100.0)
    roster.note_beat(beat("mac", long=RUNNING, short=QUEUED), 110.0)
    roster.note_beat(beat("mac", short=RUNNING), 120.0)
    view = roster.note_beat(beat("mac", short=RUNNING), 125.0)
    assert view.worked_s == {"short": 5.0}
    assert roster.note_beat(beat("mac", "i2", short=RUNNING), 130.0).worked_s == {"short": 0.0}, "another process"


@pytest.mark.parametrize("state", [AgentState.ONLINE, AgentState.OFFLINE])
def test_agents_that_are_silent_for_long_are_forgotten_when_a_new_one_comes(state: AgentState) -> None:
    roster = AgentRoster()
    roster.note_beat(beat("old").model_copy(update={"state": state}), 0.0)
    roster.note_beat(beat("mac"), 1.0)
    roster.note_beat(beat("mac"), FORGOTTEN_S)
    roster.note_beat(beat("new"), FORGOTTEN_S + 0.5)
    assert roster.get("old") is None
    assert roster.get("mac") is not None
