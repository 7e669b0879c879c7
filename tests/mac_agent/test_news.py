"""What a heartbeat tells at once and what can wait a moment: pure."""

from dataclasses import replace

import pytest

from mac_agent.heartbeat import News
from schemas.agent import AgentState, JobState

IDLE = News(AgentState.ONLINE, 8, (), {})
ONE = replace(IDLE, free_places=7, jobs=(("l1", JobState.RECEIVING),))
TWO = replace(ONE, free_places=6, jobs=(("l1", JobState.RUNNING), ("l2", JobState.RECEIVING)))
FULL_DISK = replace(ONE, free_places=0, notes={"disk": "full"})
DONE = replace(TWO, free_places=7, jobs=(("l2", JobState.RUNNING), ("l1", JobState.OUTBOX)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, IDLE),
        (IDLE, replace(IDLE, state=AgentState.DRAINING)),
        (IDLE, ONE),
        (ONE, FULL_DISK),
        (TWO, DONE),
        (ONE, IDLE),
        (ONE, replace(ONE, jobs=(("l2", JobState.RECEIVING),))),
    ],
    ids=["the first", "its state", "its first job", "no room", "a result", "a job ended", "one ended as another came"],
)
def test_what_the_bridge_acts_on_is_told_at_once(before: News | None, after: News) -> None:
    assert after.is_urgent(before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ONE, replace(ONE, jobs=(("l1", JobState.RUNNING),))),
        (ONE, TWO),
        (DONE, replace(DONE, jobs=(("l2", JobState.RUNNING),))),
    ],
    ids=["how far a job is", "a job beside others", "a settled result"],
)
def test_what_changes_nothing_for_the_bridge_can_wait(before: News, after: News) -> None:
    assert not after.is_urgent(before)
