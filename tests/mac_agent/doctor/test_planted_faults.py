"""Each planted fault is found and named by `omi-agent doctor`, with what mends it; a healthy agent has none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from broker.settings import load_settings
from mac_agent import broker_check
from mac_agent.commands.doctor import run_checks
from mac_agent.settings import AgentSettings
from tests.mac_agent.doctor.planted_faults import FAULTS, Mac, trusted
from tests.pace import paced
from tests.planted_broker import PlantedBroker, run_planted_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.check import Check

WAIT_S = 0.8
# There is no bridge in these tests, only its heartbeat: it does not answer, and that is one of the faults.
KNOWN = {"topics"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlantedBroker]:
    with run_planted_broker(tmp_path_factory.mktemp("planted")) as running:
        yield running


@pytest.fixture
def mac(broker: PlantedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    for name, value in broker.environment("agent:first").items():
        monkeypatch.setenv(name, value)
    data_dir, config = tmp_path / "data", tmp_path / "config.toml"
    data_dir.mkdir(mode=0o700)
    config.write_text("")
    config.chmod(0o600)
    own = {"OMI_DATA_DIR": data_dir, "OMI_AGENT_ID": "first", "OMI_ENGINE": "embedded-ge2e"}
    for name, path in own.items():
        monkeypatch.setenv(name, str(path))
    broker.be_well()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(broker_check, "CONNECT_TIMEOUT_S", paced(2.0))
    return Mac(broker, data_dir, config, monkeypatch, tmp_path / "scratch")


def examine(mac: Mac) -> dict[str, Check]:
    settings = load_settings(AgentSettings, flags={}, config_file=mac.config, role="agent").settings
    checks = run_checks(settings, mac.config, wait_s=WAIT_S, deep=False)
    assert len({check.name for check in checks}) == len(checks), "each check has a name of its own"
    return {check.name: check for check in checks}


@pytest.mark.slow
def test_nothing_is_found_where_nothing_is_planted(mac: Mac) -> None:
    trusted(mac)
    checks = examine(mac)
    ill = {name: check.words for name, check in checks.items() if check.verdict != "ok" and name not in KNOWN}
    assert ill == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_named(name: str, mac: Mac) -> None:
    if "unit" in name and sys.platform != "linux":
        pytest.skip("units are systemd's")
    fault = FAULTS[name]
    fault.plant(mac)
    check = examine(mac)[fault.check]
    assert check.verdict == fault.verdict, check.words
    assert fault.found in check.found, check.words
    assert fault.remedy in (check.remedy or ""), check.words
    assert "hush" not in check.words


def test_there_are_twenty_and_more() -> None:
    assert len(FAULTS) >= 20
