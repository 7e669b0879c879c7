"""`omi-bridge doctor` finds what a test broke, names the remedy, and finds nothing where nothing is broken."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.check import Check, CheckState
from broker.tailnet import judge_broker_host, judge_tailnet
from schemas.agent import AgentHeartbeat, AgentState
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.failure import FailureCode
from schemas.turns import EngineDescription
from tests.brokers import RunningBroker, free_port
from tests.pace import paced
from tests.vps_bridge.live_bridge import Backend, LiveBridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.doctor.broker_checks import check_agents, check_bridge_lives, check_broker_limits
from vps_bridge.doctor.broker_probe import BrokerFindings, ReceivedBeat
from vps_bridge.doctor.file_checks import check_queue
from vps_bridge.ledger.records import QueueCounts
from vps_bridge.rules.queue_share import QueueUse

NOW = datetime(2026, 5, 1, tzinfo=UTC)
Findings = dict[str, dict[str, Any]]


def doctor(bridge: LiveBridge, home: Path, *, wait_s: float = 0.5, **environment: str) -> tuple[int, Findings]:
    """Exit code, and the checks by name."""
    bridge.options |= {"XDG_CONFIG_HOME": str(home / "config"), **environment}
    done = bridge.command("doctor", "--json", "--wait", f"{wait_s:.1f}", check=False)
    for name in environment:
        del bridge.options[name]
    assert done.returncode in {0, 1}, done.stderr
    checks = json.loads(done.stdout)
    assert len({check["name"] for check in checks}) == len(checks), "each check has a name of its own"
    assert all(check["remedy"] or check["name"] == "broker" for check in checks if check["verdict"] == "failed")
    return done.returncode, {check["name"]: check for check in checks}


# --------------------------------------------------------------------- against a real broker and a real bridge


@pytest.mark.long
def test_a_well_system_then_an_agent_nobody_allowed_then_a_failed_job(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge, tmp_path: Path
) -> None:
    own_bridge.command("agents", "forget", "second")
    with ScriptedAgent(own_broker, "first") as agent:
        wait_until(lambda: own_bridge.json("agents")[0]["heartbeat"], "the agent's first heartbeat")
        code, well = doctor(own_bridge, tmp_path, wait_s=paced(1.5))
        assert code == 0, well
        assert {check["verdict"] for name, check in well.items() if name != "config file"} == {"ok"}
        for name in (
            "ledger",
            "conversations",
            "broker",
            "rights",
            "bridge",
            "agent first",
            "clocks",
            "queue",
            "failures",
        ):
            assert name in well
        own_backend.send_call("broken")
        for attempt in range(3):
            agent.fail(agent.wait_offer("broken", after=attempt), FailureCode.AUDIO_UNDECODABLE)
        own_backend.wait_updated("broken")
        with ScriptedAgent(own_broker, "second"):
            wait_until(lambda: len(own_bridge.json("agents")) == 2, "the stranger's first heartbeat")
            code, ill = doctor(own_bridge, tmp_path, wait_s=paced(1.5))
    assert code == 1
    assert "omi-bridge failed" in ill["failures"]["remedy"]
    assert ill["agent second"]["remedy"] == "omi-bridge agents allow second"


@pytest.mark.long
def test_a_spool_that_is_gone_a_dead_bridge_and_a_damaged_ledger_are_found(
    own_bridge: LiveBridge, tmp_path: Path
) -> None:
    spool = own_bridge.data_dir / "bridge" / "spool"
    spool.rename(spool.with_name("moved"))
    _, without_spool = doctor(own_bridge, tmp_path)
    assert without_spool["spool"]["verdict"] == "failed"
    assert "Restart the bridge" in without_spool["spool"]["remedy"]
    spool.with_name("moved").rename(spool)
    own_bridge.kill()
    _, alone = doctor(own_bridge, tmp_path)
    assert "spool" not in alone
    assert alone["bridge"]["verdict"] == "failed"
    assert "systemctl start" in alone["bridge"]["remedy"]
    with (own_bridge.data_dir / "bridge" / "ledger.sqlite3").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(os.urandom(40 * 4096))
    _, damaged = doctor(own_bridge, tmp_path)
    assert damaged["ledger"]["verdict"] == "failed"
    assert damaged["conversations"]["verdict"] == "ok"
    assert "backup" in damaged["ledger"]["remedy"]


@pytest.mark.long
def test_faults_of_settings_broker_and_tailnet_are_named(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    config, tailscale = tmp_path / "omi.toml", tmp_path / "bin" / "tailscale"
    config.write_text('broker_password = "hush"')
    config.chmod(0o644)
    tailscale.parent.mkdir()
    tailscale.write_text('#!/bin/sh\necho \'{"BackendState": "NeedsLogin"}\'\n')
    tailscale.chmod(0o755)
    wrong: dict[str, Any] = {
        "OMI_CONFIG": str(config),
        "PATH": f"{tailscale.parent}:{os.environ['PATH']}",
        "OMI_BALLAST_BYTES": str(10**18),
    }
    code, checks = doctor(bridge, tmp_path, **wrong, OMI_BROKER_PASSWORD="wrong")
    assert code == 1
    assert {name for name in checks if checks[name]["verdict"] == "failed"} >= {
        "config file",
        "disk",
        "broker",
        "tailnet",
    }
    assert "OMI_BROKER_PASSWORD" in checks["broker"]["found"]
    assert checks["tailnet"]["remedy"] == "tailscale up"
    assert "hush" not in json.dumps(checks)
    _, checks = doctor(bridge, tmp_path, OMI_BROKER_URL=f"mqtt://127.0.0.1:{free_port()}")
    assert "cannot be reached" in checks["broker"]["found"] or "refused" in checks["broker"]["found"]
    agents_user = mosquitto.environment("agent")
    login: dict[str, Any] = {name: agents_user[name] for name in ("OMI_BROKER_USERNAME", "OMI_BROKER_PASSWORD")}
    _, checks = doctor(bridge, tmp_path, **login)
    assert checks["rights"]["verdict"] == "failed"
    assert "control" in checks["rights"]["found"]


# ----------------------------------------------------------------------------- what is concluded from a probe


def beat(
    agent_id: str = "mac", *, ahead_s: float = 0.0, retained: bool = False, **fields: Any
) -> ReceivedBeat[AgentHeartbeat]:
    sent_at = NOW + timedelta(seconds=ahead_s)
    fields = {"state": AgentState.ONLINE, "sent_at": sent_at, "started_at": sent_at, **fields}
    return ReceivedBeat(AgentHeartbeat(agent_id=agent_id, instance_id="i-1", **fields), NOW, retained)


def bridge_beat(
    name: str = "vps", *, ahead_s: float = 0.0, retained: bool = False, **fields: Any
) -> ReceivedBeat[BridgeHeartbeat]:
    sent_at = NOW + timedelta(seconds=ahead_s)
    fields = {"state": BridgeState.ONLINE, "ledger_id": "l-1", "sent_at": sent_at, "started_at": sent_at, **fields}
    return ReceivedBeat(BridgeHeartbeat(bridge_id=name, instance_id=f"i-{name}", **fields), NOW, retained)


def found(
    *agents: ReceivedBeat[AgentHeartbeat], bridges: tuple[ReceivedBeat[BridgeHeartbeat], ...] = ()
) -> BrokerFindings:
    return BrokerFindings(
        "mqtt://x:1883",
        protocol="5",
        max_packet_bytes=2_000_000,
        bridges={heard.beat.instance_id: heard for heard in bridges},
        agents={heard.beat.agent_id: heard for heard in agents},
    )


def failures(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if check.verdict is CheckState.FAILED}


@pytest.mark.parametrize("ahead_s", [-3_600, -6, 6, 3_600])
def test_a_clock_that_is_wrong_is_found_whichever_is_ahead(ahead_s: float) -> None:
    ill = failures(check_agents(found(beat(ahead_s=ahead_s)), {"mac"}, 30.0))
    assert f"mac's is {ahead_s:+.0f} s beside ours" in ill["clocks"].found


def test_a_retained_beat_says_nothing_of_a_clock_and_an_old_one_is_no_live_agent() -> None:
    assert failures(check_agents(found(beat(ahead_s=-20, retained=True)), {"mac"}, 30.0)) == {}
    assert set(failures(check_agents(found(beat(ahead_s=-200, retained=True)), {"mac"}, 30.0))) == {"agents"}


def test_an_agent_that_stopped_says_why_it_did() -> None:
    stopped = beat(state=AgentState.STOPPED, last_error="model.bin is missing. Run: omi-agent fetch-model embedded")
    [check] = [check for check in check_agents(found(stopped), {"mac"}, 30.0) if check.name == "agent mac"]
    assert "stopped; last error: model.bin is missing. Run: omi-agent fetch-model embedded" in check.found


def test_agents_of_two_models_are_named() -> None:
    engines = [EngineDescription(name="e", embedding_model=model) for model in ("wespeaker", "campplus")]
    heard = found(beat("one", engine=engines[0]), beat("two", engine=engines[1]))
    (models,) = [check for check in check_agents(heard, {"one", "two"}, 30.0) if check.name == "models"]
    assert "one has wespeaker@; two has campplus@" in models.found


def test_several_bridges_of_one_ledger_are_told_of_as_one() -> None:
    (check,) = check_bridge_lives(found(bridges=(bridge_beat("one"), bridge_beat("two"))), "l-1", 30.0)
    assert check.verdict is CheckState.OK
    assert "one is online, beside two on the same ledger" in check.found


@pytest.mark.parametrize(
    ("bridges", "said"),
    [
        ((), "none is live"),
        ((bridge_beat(state=BridgeState.STOPPED),), "vps stopped"),
        ((bridge_beat(ahead_s=-300, retained=True),), "none is live"),
        ((bridge_beat("one"), bridge_beat("two", ledger_id="l-other")), "two are live"),
        ((bridge_beat("one"), bridge_beat("two", accepting=False, last_error="full")), "two is online, beside one"),
        ((bridge_beat(ledger_id="l-other"),), "another ledger"),
        ((bridge_beat(accepting=False, last_error="the disk is full"),), "takes no audio"),
    ],
)
def test_no_bridge_two_bridges_another_one_and_a_full_one(
    bridges: tuple[ReceivedBeat[BridgeHeartbeat], ...], said: str
) -> None:
    ill = failures(check_bridge_lives(found(bridges=bridges), "l-1", 30.0))
    assert said in ill["bridge"].found
    assert ill["bridge"].remedy


def test_a_broker_whose_packets_are_too_small_for_a_part_is_found() -> None:
    assert set(failures(check_broker_limits(found(), 1_990_000))) == {"broker"}
    assert failures(check_broker_limits(found(), 262_144)) == {}


def test_what_waits_too_long_is_said_with_the_reason() -> None:
    counts = QueueCounts(0, 3, 0, 0, 0, 10**7, oldest_at=1_000.0)
    limit = QueueUse(20_000, 10**10)
    assert failures(check_queue(counts, ["call: the agents are busy"], now=1_060.0, limit=limit)) == {}
    ill = failures(check_queue(counts, ["call: no allowed agent is live (mac)"], now=5_000.0, limit=limit))
    assert "no allowed agent is live (mac)" in ill["queue"].found


def test_a_queue_without_room_says_what_makes_room() -> None:
    counts = QueueCounts(0, 17, 3, 0, 0, 10**7, oldest_at=1_000.0)
    ill = failures(check_queue(counts, [], now=1_060.0, limit=QueueUse(20, 10**9)))
    assert "20 of at most 20 jobs" in ill["queue"].found
    assert "Start another agent, or raise OMI_MAX_QUEUE_JOBS" in (ill["queue"].remedy or "")


@pytest.mark.parametrize(
    ("key_expiry", "verdict"),
    [
        (None, CheckState.OK),
        ("2026-12-01T00:00:00Z", CheckState.OK),
        ("2026-05-10T00:00:00Z", CheckState.NOTE),
        ("2026-04-30T00:00:00Z", CheckState.FAILED),
    ],
)
def test_a_key_of_the_tailnet_that_ends_is_told_before(key_expiry: str | None, verdict: CheckState) -> None:
    own = {"TailscaleIPs": ["100.64.0.7"]} | ({"KeyExpiry": key_expiry} if key_expiry else {})
    assert judge_tailnet({"BackendState": "Running", "Self": own}, NOW).verdict is verdict


BROKERS = {
    "100.64.0.7": ("ok", "in the tailnet"),
    "vps.tail1234.ts.net": ("ok", "in the tailnet"),
    "100.64.0.99": ("failed", "no machine of this tailnet has the address"),
    "100.64.0.8": ("failed", "expired"),
    "100.64.0.9": ("failed", "not connected"),
}


@pytest.mark.parametrize("host", BROKERS)
def test_a_broker_that_moved_in_the_tailnet_or_left_it_is_named(host: str) -> None:
    own = {"TailscaleIPs": ["100.64.0.7"], "DNSName": "vps.tail1234.ts.net."}
    peers = {
        "a": {"TailscaleIPs": ["100.64.0.8"], "Expired": True},
        "b": {"TailscaleIPs": ["100.64.0.9"], "Online": False},
    }
    verdict, said = BROKERS[host]
    [check] = judge_broker_host({"Self": own, "Peer": peers}, host)
    assert (check.verdict, check.remedy is None) == (verdict, verdict == "ok")
    assert said in check.found
    assert judge_broker_host({"Self": own, "Peer": peers}, "127.0.0.1") == []
