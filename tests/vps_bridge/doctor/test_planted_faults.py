"""Each planted fault is found and named by `omi-bridge doctor`, with what mends it; a healthy bridge has none."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.check import Check
from broker.settings import load_settings
from tests.pace import paced
from tests.planted_broker import LEDGER_ID, PlantedBroker, run_planted_broker
from tests.vps_bridge.doctor.planted_faults import FAULTS, World
from vps_bridge.commands.doctor import run_checks
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.doctor import broker_probe
from vps_bridge.ledger import Ledger
from vps_bridge.settings import BridgeSettings

WAIT_S = 0.5


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlantedBroker]:
    with run_planted_broker(tmp_path_factory.mktemp("planted")) as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a healthy bridge, to be copied."""
    data_dir = tmp_path_factory.mktemp("files") / "data"
    ledger = Ledger(data_dir / "bridge", exclusive=True)
    ledger.agents.set_allowed("first", allowed=True)
    ledger.close()
    with sqlite3.connect(data_dir / "bridge" / "ledger.sqlite3") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'ledger_id'", (LEDGER_ID,))
    SqliteConversations(data_dir / "bridge" / STORE_FILE).close()
    return data_dir


@pytest.fixture
def world(broker: PlantedBroker, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in broker.environment("bridge").items():
        monkeypatch.setenv(name, value)
    data_dir, config = tmp_path / "data", tmp_path / "config.toml"
    shutil.copytree(files, data_dir)
    data_dir.chmod(0o700)
    (data_dir / "bridge" / "spool").mkdir(mode=0o700)
    config.write_text("")
    config.chmod(0o600)
    monkeypatch.setenv("OMI_DATA_DIR", str(data_dir))
    broker.be_well()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(broker_probe, "CONNECT_TIMEOUT_S", paced(2.0))
    return World(broker, data_dir, config, monkeypatch, tmp_path / "scratch")


def examine(world: World) -> dict[str, Check]:
    settings = load_settings(BridgeSettings, flags={}, config_file=world.config, role="bridge").settings
    checks = run_checks(settings, world.config, WAIT_S)
    assert len({check.name for check in checks}) == len(checks), "each check has a name of its own"
    return {check.name: check for check in checks}


def test_nothing_is_found_where_nothing_is_planted(world: World) -> None:
    checks = examine(world)
    assert {name: check.words for name, check in checks.items() if check.verdict != "ok"} == {}
    assert "mosquitto version 2" in checks["broker"].found


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_named(name: str, world: World) -> None:
    fault = FAULTS[name]
    fault.plant(world)
    check = examine(world)[fault.check]
    assert check.verdict == fault.verdict, check.words
    assert fault.found in check.found, check.words
    assert fault.remedy in (check.remedy or ""), check.words
    assert "hush" not in check.words


def test_there_are_twenty_and_more() -> None:
    assert len(FAULTS) >= 20
