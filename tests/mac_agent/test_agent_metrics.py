"""What Prometheus reads of an agent, and who may read it."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mac_agent.metrics import AgentMetrics
from schemas.agent import AgentHeartbeat, AgentState, HeldJob, HeldJobState
from tests.brokers import free_port

NOW = datetime.now(UTC)
BEAT = AgentHeartbeat(
    agent_id="anna-macbook",
    instance_id="i-1",
    state=AgentState.ONLINE,
    sent_at=NOW,
    started_at=NOW,
    jobs=(HeldJob(job_id="j-secret", lease_id="l-secret", state=HeldJobState.RUNNING),),
    jobs_done=3,
    last_error="secret words",
)


@pytest.fixture(scope="module")
def served():
    port = free_port()
    metrics = AgentMetrics(port, is_connected=lambda: True, dropped=lambda: 2)
    metrics.start()
    metrics.note_beat(BEAT)
    yield f"http://127.0.0.1:{port}"
    metrics.stop()


def test_its_heartbeat_is_told_in_numbers_and_nothing_of_anybody(served):
    text = httpx.get(f"{served}/metrics").raise_for_status().text
    samples = {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert samples["omi_agent_jobs_done_total",] == 3
    assert samples["omi_agent_jobs", "running"] == 1
    assert samples["omi_agent_state", "online"] == 1
    assert samples["omi_agent_state", "draining"] == 0
    assert samples["omi_agent_connected",] == 1
    assert samples["omi_agent_messages_dropped_total",] == 2
    assert [word for word in ("anna", "secret", "i-1") if word in text] == []


def test_only_programs_on_this_machine_read_it_and_nothing_else_is_there(served):
    for headers in ({"Host": "rebound.example"}, {"Origin": "http://evil.example"}):
        assert httpx.get(f"{served}/metrics", headers=headers).status_code == 403
    assert httpx.get(f"{served}/").status_code == 404
    assert httpx.post(f"{served}/metrics").status_code == 501


def test_a_port_that_is_taken_stops_nobody(served):
    metrics = AgentMetrics(int(served.rpartition(":")[2]), is_connected=lambda: True, dropped=lambda: 0)
    metrics.start()
    metrics.note_beat(BEAT)
    metrics.stop()


def test_promtool_finds_nothing_to_say_about_them():
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    metrics = AgentMetrics(0, is_connected=lambda: False, dropped=lambda: 0)
    metrics.note_beat(BEAT)
    done = subprocess.run([found, "check", "metrics"], input=metrics.render(), capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
