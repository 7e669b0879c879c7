"""`omi-agent doctor` finds what a test broke, names the remedy, and finds nothing where nothing is broken."""

from __future__ import annotations

import json
import os
import plistlib
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from broker.check import CheckState
from broker.file_checks import check_config_file, check_data_dir, check_disk
from broker.session import Incoming
from mac_agent.broker_check import BrokerProbe, ReceivedHeartbeat, _record, check_agent, check_bridge, check_broker
from mac_agent.machine_check import (
    check_device,
    check_packages,
    check_python,
    check_service,
)
from mac_agent.service import Service, render_plist
from schemas.agent import AgentHeartbeat, AgentState
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import encode
from schemas.topics import Topics
from tests.brokers import AGENT_ID, free_port, run_embedded
from tests.inbox import WAIT_S, eventually
from tests.mac_agent.small_hub import GOOD_TOKEN, PIPELINE_FILES, SmallHub
from tests.pace import paced

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
OMI_BRIDGE = [sys.executable, "-c", "from vps_bridge.commands.main import main; main()"]
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def broker(mosquitto):
    return mosquitto


def doctor(environment: dict[str, str], home: Path, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and the checks by name."""
    ours = {name: value for name, value in environment.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    how_long = arguments or ("--wait", f"{paced(3.0):.1f}")
    done = subprocess.run(
        [sys.executable, "-m", "mac_agent.commands.main", "doctor", "--json", *how_long],
        cwd=ROOT,
        env={
            "OMI_AGENT_ID": AGENT_ID,
            "OMI_DATA_DIR": str(home / "agent"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "HF_HOME": str(home / "hf"),
            **ours,
            **{name: value for name, value in environment.items() if name in {"HF_ENDPOINT", "HF_TOKEN"}},
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert done.returncode in {0, 1}, done.stderr
    checks = json.loads(done.stdout)
    assert len({check["name"] for check in checks}) == len(checks)
    return done.returncode, {check["name"]: check for check in checks}


# -------------------------------------------------------------------- against a real broker and a real bridge


def test_an_agent_that_waits_to_be_allowed_is_found_and_passes_once_it_is_allowed(broker, tmp_path):
    (tmp_path / "behaviour").write_text("")
    bridge_environment = broker.environment("bridge") | {
        "OMI_DATA_DIR": str(tmp_path / "bridge"),
        "OMI_HEARTBEAT_S": "0.5",
    }
    agent_environment = broker.environment("agent") | {
        "OMI_AGENT_ID": AGENT_ID,
        "OMI_DATA_DIR": str(tmp_path / "agent"),
        "OMI_HEARTBEAT_S": "0.5",
        "OMI_TEST_BEHAVIOUR": str(tmp_path / "behaviour"),
        "PYTHONPATH": str(ROOT),
    }
    bridge = subprocess.Popen([*OMI_BRIDGE, "run"], env=bridge_environment, cwd=ROOT)
    agent = subprocess.Popen([sys.executable, "-m", "tests.mac_agent.tone_agent"], env=agent_environment, cwd=ROOT)
    try:
        eventually(lambda: doctor(agent_environment, tmp_path)[1].get("agent", {}).get("verdict") == "ok")
        code, waiting = doctor(agent_environment, tmp_path)
        assert code == 1
        assert waiting["allowed"]["verdict"] == "failed"
        assert waiting["allowed"]["remedy"] == f"On the VPS: omi-bridge agents allow {AGENT_ID}"
        allow = [*OMI_BRIDGE, "agents", "allow", AGENT_ID]
        subprocess.run(allow, env=bridge_environment, cwd=ROOT, check=True, capture_output=True)
        eventually(lambda: doctor(agent_environment, tmp_path)[1]["allowed"]["verdict"] == "ok")
        _, well = doctor(agent_environment, tmp_path)
        for name in ("broker", "topics", "bridge", "allowed", "clock", "agent"):
            assert well[name]["verdict"] == "ok", well[name]
        assert "MQTT 5" in well["broker"]["found"]
        assert agent.poll() is None
    finally:
        for process in (agent, bridge):
            process.terminate()
            process.wait(WAIT_S)
    _, alone = doctor(agent_environment, tmp_path)
    assert alone["bridge"]["verdict"] == "failed"
    assert "stopped" in alone["bridge"]["found"]
    assert alone["agent"]["verdict"] == "note"


def test_a_wrong_password_is_not_reported_as_an_unreachable_broker(broker, tmp_path):
    code, checks = doctor(broker.environment("agent") | {"OMI_BROKER_PASSWORD": "wrong"}, tmp_path)
    assert code == 1
    assert "refused the connection" in checks["broker"]["found"]
    assert "OMI_BROKER_PASSWORD" in checks["broker"]["found"]


def test_the_user_of_another_agent_is_found_by_the_topics_it_may_not_use(broker, tmp_path):
    code, checks = doctor(broker.environment("agent") | {"OMI_AGENT_ID": "somebody-else"}, tmp_path)
    assert code == 1
    assert checks["topics"]["verdict"] == "failed"
    assert "OMI_AGENT_ID" in checks["topics"]["remedy"]
    assert checks["bridge"]["verdict"] == "failed"


def test_an_unreachable_broker_is_reported_with_its_address(tmp_path):
    url = f"mqtt://127.0.0.1:{free_port()}"
    code, checks = doctor({**os.environ, "OMI_BROKER_URL": url}, tmp_path)
    assert code == 1
    assert url in checks["broker"]["found"]
    assert "bridge" not in checks


def test_the_embedded_brokers_protocol_is_named(tmp_path):
    with run_embedded(tmp_path) as broker:
        _, checks = doctor(broker.environment("agent"), tmp_path)
    assert checks["broker"]["verdict"] == "ok"
    assert "MQTT 3.1.1" in checks["broker"]["found"]


# ---------------------------------------------------------------------------------------- weights and the hub


@pytest.fixture
def pyannote(broker, tmp_path):
    """Environment of an agent that is to use pyannote."""
    return broker.environment("agent") | {"OMI_ENGINE": "pyannote"}


def test_missing_weights_without_a_token_name_the_page_of_the_licence(pyannote, tmp_path):
    with SmallHub() as hub:
        _, checks = doctor(pyannote | {"HF_ENDPOINT": hub.url}, tmp_path, "--wait", "0.5")
        assert "omi-agent fetch-model pyannote" in checks["weights"]["found"]
        assert checks["hub"]["verdict"] == "failed"
        assert "https://huggingface.co/pyannote/speaker-diarization-community-1" in checks["hub"]["found"]
        _, checks = doctor(pyannote | {"HF_ENDPOINT": hub.url, "HF_TOKEN": GOOD_TOKEN}, tmp_path, "--wait", "0.5")
        assert checks["hub"]["verdict"] == "ok"
        assert "HF_TOKEN" in checks["hub"]["found"]
        assert GOOD_TOKEN not in json.dumps(checks)
        hub.accepted = False
        _, checks = doctor(pyannote | {"HF_ENDPOINT": hub.url, "HF_TOKEN": GOOD_TOKEN}, tmp_path, "--wait", "0.5")
        assert "has not accepted the conditions" in checks["hub"]["found"]


def test_missing_weights_without_a_network_name_the_way_around_it(pyannote, tmp_path):
    nowhere = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "HF_TOKEN": GOOD_TOKEN}
    _, checks = doctor(pyannote | nowhere, tmp_path, "--wait", "0.5")
    assert "cannot be reached" in checks["hub"]["found"]
    assert "--from" in checks["hub"]["found"]


def test_a_pipeline_of_ones_own_is_untrusted_then_unchanged_then_tampered_with(pyannote, tmp_path):
    own = tmp_path / "own"
    for name, content in PIPELINE_FILES.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_bytes(content)
    environment = pyannote | {"OMI_PIPELINE_DIR": str(own), "OMI_DATA_DIR": str(tmp_path / "agent")}
    _, checks = doctor(environment, tmp_path, "--wait", "0.5")
    assert f"omi-agent trust {own}" in checks["weights"]["found"]
    trust = [sys.executable, "-m", "mac_agent.commands.main", "trust", str(own)]
    subprocess.run(trust, env=environment, cwd=ROOT, check=True, capture_output=True)
    _, checks = doctor(environment, tmp_path, "--wait", "0.5")
    assert checks["weights"]["verdict"] == "ok"
    (own / "embedding" / "pytorch_model.bin").write_bytes(b"other")
    code, checks = doctor(environment, tmp_path, "--wait", "0.5")
    assert code == 1
    assert "embedding/pytorch_model.bin" in checks["weights"]["found"]
    assert "hub" not in checks


# ------------------------------------------------------------------- what is concluded from a broker probe


def probe(*, sent_at: datetime = NOW, is_retained: bool = False, **fields) -> BrokerProbe:
    heartbeat = BridgeHeartbeat(
        bridge_id="vps",
        instance_id="b-1",
        ledger_id="l-1",
        sent_at=sent_at,
        started_at=sent_at,
        **{"state": BridgeState.ONLINE, **fields},
    )
    agent = AgentHeartbeat(
        agent_id=AGENT_ID, instance_id="i-1", state=AgentState.ONLINE, sent_at=NOW, started_at=NOW, last_error=None
    )
    return BrokerProbe(
        "mqtt://x:1883",
        protocol="5",
        max_packet_bytes=2_000_000,
        bridge=ReceivedHeartbeat(heartbeat, NOW, is_retained),
        agent=agent,
    )


def verdicts(checks) -> dict[str, CheckState]:
    return {check.name: check.verdict for check in checks}


@pytest.mark.parametrize("skew_s", [-40, 40])
def test_a_clock_far_from_the_bridges_is_found_whichever_is_ahead(skew_s):
    checks = check_bridge(probe(sent_at=NOW - timedelta(seconds=skew_s)), AGENT_ID)
    [clock] = [check for check in checks if check.name == "clock"]
    assert clock.verdict is CheckState.FAILED
    assert f"{skew_s:+.1f} s" in clock.found


@pytest.mark.parametrize("hours", [-2, 2])
def test_an_old_retained_heartbeat_is_a_dead_bridge_and_not_a_wrong_clock(hours):
    checks = check_bridge(probe(sent_at=NOW + timedelta(hours=hours), is_retained=True), AGENT_ID)
    assert verdicts(checks) == {"bridge": CheckState.FAILED}


def test_an_agent_that_does_not_run_is_not_called_allowed():
    without_agent = replace(probe(), agent=None)
    assert verdicts(check_bridge(without_agent, AGENT_ID))["allowed"] is CheckState.NOTE
    assert verdicts(check_agent(without_agent)) == {"agent": CheckState.NOTE}


def test_a_beat_that_the_broker_only_kept_proves_no_running_agent():
    found, topics = probe(), Topics("omi/v1")
    assert found.agent is not None
    kept = Incoming(topics.agent_heartbeat(AGENT_ID), encode(found.agent), retain=True, qos=1, content_type=None)
    _record(found, kept, "doctor-1", topics)
    [agent] = check_agent(found)
    assert agent.verdict is CheckState.FAILED
    assert "online when last heard" in agent.found
    assert "Start it again" in (agent.remedy or "")
    assert verdicts(check_bridge(found, AGENT_ID))["allowed"] is CheckState.NOTE


def test_a_broker_whose_packets_are_too_small_for_a_part_is_found():
    assert verdicts(check_broker(replace(probe(), max_packet_bytes=100_000), AGENT_ID))["broker"] is CheckState.FAILED


def test_a_bridge_that_does_not_answer_points_to_the_rights():
    checks = verdicts(check_broker(probe(), AGENT_ID))
    assert checks == {"broker": CheckState.OK, "topics": CheckState.FAILED}


@pytest.mark.parametrize("state", [None, AgentState.STOPPED, AgentState.OFFLINE])
def test_an_agent_that_never_ran_may_only_have_to_be_allowed(state):
    found = probe()
    assert found.agent is not None
    agent = found.agent.model_copy(update={"state": state}) if state else None
    checks = [
        *check_broker(replace(found, agent=agent), AGENT_ID),
        *check_bridge(replace(found, agent=agent), AGENT_ID),
    ]
    assert [check.name for check in checks if check.verdict is CheckState.FAILED] == []
    [topics] = [check for check in checks if check.name == "topics"]
    assert f"omi-bridge agents allow {AGENT_ID}" in (topics.remedy or "")


def test_an_agent_that_waits_to_be_allowed_reads_of_that_alone():
    found = probe()
    assert found.bridge is not None
    waiting = found.bridge.heartbeat.model_copy(update={"agents_waiting": (AGENT_ID,)})
    found = replace(found, bridge=replace(found.bridge, heartbeat=waiting))
    checks = [*check_broker(found, AGENT_ID), *check_bridge(found, AGENT_ID)]
    assert [check.name for check in checks if check.verdict is CheckState.FAILED] == ["allowed"]


# ------------------------------------------------------------------------------------------ this machine


def test_a_python_made_for_intel_is_noticed_on_a_mac():
    assert check_python(system="darwin", machine="x86_64").verdict is CheckState.NOTE
    assert check_python(system="darwin", machine="arm64").verdict is CheckState.OK


def test_a_missing_package_is_named():
    assert "no-such-package" in check_packages(["no-such-package", "rich"]).found


def test_a_data_directory_others_may_write_into_is_refused(tmp_path):
    directory = tmp_path / "data"
    assert check_data_dir(directory).verdict is CheckState.OK
    directory.chmod(0o777)
    found = check_data_dir(directory)
    assert found.verdict is CheckState.FAILED
    assert "chmod 700" in (found.remedy or "")
    (tmp_path / "file").write_text("")
    assert check_data_dir(tmp_path / "file" / "data").verdict is CheckState.FAILED


def test_a_config_file_with_a_password_that_others_can_read_is_refused(tmp_path):
    config = tmp_path / "config.toml"
    assert check_config_file(config, "none needed").verdict is CheckState.NOTE
    config.write_text('broker_password = "hush"')
    config.chmod(0o640)
    found = check_config_file(config, "none needed")
    assert found.verdict is CheckState.FAILED
    assert "hush" not in found.found
    config.chmod(0o600)
    assert check_config_file(config, "none needed").verdict is CheckState.OK


def test_a_full_disk_is_found(tmp_path):
    assert check_disk(tmp_path / "not" / "yet", 10**18, "jobs").verdict is CheckState.FAILED
    assert check_disk(tmp_path, 1, "jobs").verdict is CheckState.OK


def test_how_much_room_is_needed_is_told_below_a_gigabyte_too(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1_500_000))
    found = check_disk(tmp_path, 33_554_432, "audio and the reserve")
    assert found.found.startswith("1.5 MB free")
    assert found.remedy == "Make room: audio and the reserve need 33.6 MB."


def test_a_device_that_is_not_here_is_found():
    assert check_device("auto").verdict is CheckState.OK
    found = check_device("tpu")
    assert found.verdict is CheckState.FAILED
    assert "cpu" in (found.remedy or "")


def test_a_secret_in_the_property_list_is_found_without_repeating_it(tmp_path):
    service = Service(("omi-agent",), tmp_path, tmp_path / "config.toml", uid=501, user="ann")
    assert check_service(service)[0].verdict is CheckState.NOTE
    service.plist_file.parent.mkdir(parents=True)
    service.plist_file.write_bytes(render_plist(service))
    assert check_service(service)[0].verdict is CheckState.OK
    plist = plistlib.loads(render_plist(service))
    plist["EnvironmentVariables"]["OMI_BROKER_PASSWORD"] = "hush"
    service.plist_file.write_bytes(plistlib.dumps(plist))
    [found] = check_service(service)
    assert found.verdict is CheckState.FAILED
    assert "OMI_BROKER_PASSWORD" in found.found
    assert "hush" not in f"{found}"
