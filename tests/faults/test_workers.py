"""A worker that dies or hangs costs one attempt: its job is done again, and its agent is never taken for gone."""

from __future__ import annotations

import pytest

from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.faults.conftest import StartAgent
from tests.faults.tone_calls import assert_labelled, send_call
from tests.vps_bridge.live_bridge import Backend, LiveBridge

FAULTS = {
    "kill": FailureCode.ENGINE_CRASHED,
    "segfault": FailureCode.ENGINE_CRASHED,
    "bomb": FailureCode.ENGINE_CRASHED,
    "stop": FailureCode.ENGINE_TIMEOUT,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_whose_worker_dies_once_is_tried_again_and_done_by_the_same_agent(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent, fault: str
) -> None:
    agent = start_agent(
        broker,
        behaviour=f"once {fault}",
        job_timeout_floor_s=2 * float(bridge.environment()["OMI_STALE_S"]),  # its agent must not become stale meanwhile
        job_timeout_factor=0,
        max_worker_gb=0.5,
    )
    send_call(backend, fault)
    assert_labelled(backend.wait_updated(fault))
    (failure,) = backend.failures(fault)
    assert (failure.code, failure.retryable) == (FAULTS[fault], True)
    (job,) = bridge.jobs(fault)
    assert (job["state"], job["attempts"], job["deaths"]) == ("done", 1, 0)
    assert bridge.revocations(fault) == []
    send_call(backend, f"after-{fault}")
    assert_labelled(backend.wait_updated(f"after-{fault}"))
    assert agent.stop() == 0
