"""What a heartbeat says: which changes are sent at once, and which can wait a moment; the memory in use."""

import resource
from dataclasses import replace

import pytest

from mac_agent.heartbeat import BeatContent, measure_memory
from schemas.agent import AgentState, HeldJobState

IDLE = BeatContent(AgentState.ONLINE, 8, (), {})
ONE = replace(IDLE, free_capacity=7, jobs=(("l1", HeldJobState.RECEIVING),))
TWO = replace(ONE, free_capacity=6, jobs=(("l1", HeldJobState.RUNNING), ("l2", HeldJobState.RECEIVING)))
FULL_DISK = replace(ONE, free_capacity=0, notes={"disk": "full"})
DONE = replace(TWO, free_capacity=7, jobs=(("l2", HeldJobState.RUNNING), ("l1", HeldJobState.OUTBOX)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, IDLE),
        (IDLE, replace(IDLE, state=AgentState.DRAINING)),
        (IDLE, ONE),
        (ONE, FULL_DISK),
        (TWO, DONE),
        (ONE, IDLE),
        (ONE, replace(ONE, jobs=(("l2", HeldJobState.RECEIVING),))),
    ],
    ids=["the first", "its state", "its first job", "no room", "a result", "a job ended", "one ended as another came"],
)
def test_what_the_bridge_acts_on_is_sent_at_once(before: BeatContent | None, after: BeatContent) -> None:
    assert after.is_urgent(before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ONE, replace(ONE, jobs=(("l1", HeldJobState.RUNNING),))),
        (ONE, TWO),
        (DONE, replace(DONE, jobs=(("l2", HeldJobState.RUNNING),))),
    ],
    ids=["how far a job is", "a job beside others", "a settled result"],
)
def test_what_changes_nothing_for_the_bridge_can_wait(before: BeatContent, after: BeatContent) -> None:
    assert not after.is_urgent(before)


def test_an_agent_that_can_open_no_file_still_has_something_to_send() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        memory = measure_memory(None, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert memory.agent_rss_bytes >= 0
