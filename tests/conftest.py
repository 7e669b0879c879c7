"""What every test shares: the recordings beside the repository, and a run in which nothing may be skipped.

With ``OMI_REQUIRE_ALL=1`` a test skipped for want of a broker, of weights or of the ``shared`` folder fails
the whole run, by name. Weights that sit behind a personal licence (the reason says "gated") are excused, and what no
machine of this kind could run (it says "does not apply").
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests import ledger_switch
from tests.brokers import RunningBroker, run_embedded, run_mosquitto, run_nats

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# How long drawing an example takes is no property of the code; hypothesis' own profile `ci` has the same two settings.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Rooms that must pass with only the `bridge` extra installed.
BRIDGE_ROOMS = ("schemas", "vps_bridge")

_PREVENTABLE = re.compile(
    r"mosquitto|nats|broker|shared|recording|weights|model|could not import|(not|is) installed", re.IGNORECASE
)
_EXCUSED = re.compile(r"gated|optional|does not apply", re.IGNORECASE)


# Under `nohup` programs that tests start would ignore the end of a terminal, as they should, and tests wait for ever.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def ledgers() -> Iterator[None]:
    """Ledgers are files, unless a run has them all on a server."""
    with ledger_switch.switched() if ledger_switch.IS_ON else nullcontext():
        yield


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What a command in this process makes of the log ends with its test.

    It may silence it, and a logger would for ever keep what it was first used with.
    """
    before, configure = structlog.get_config(), structlog.configure

    def configure_uncached(**options: Any) -> None:
        configure(**options | {"cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(structlog, "configure", configure_uncached)
        yield
    configure(**before)


@pytest.fixture(scope="module", autouse=True)
def no_connection_left() -> Iterator[None]:
    """A module ends the connections that it began: one left alone writes into what later tests read."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before and thread.name[:5] == "mqtt "]
    assert not left, "connections that were never stopped"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of real recordings, transcripts and golden files; users do not have it."""
    if not SHARED.is_dir():
        pytest.skip(f"the recordings are not here: no folder {SHARED.name!r} beside the repository")
    return SHARED


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[RunningBroker]:
    """A Mosquitto for one test alone."""
    with run_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[RunningBroker]:
    """An embedded broker for one test alone."""
    with run_embedded(tmp_path) as broker:
        yield broker


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[RunningBroker]:
    """A NATS server for one test alone."""
    with run_nats(tmp_path) as broker:
        yield broker


@pytest.fixture(params=["mosquitto", "embedded"])
def any_broker(request: pytest.FixtureRequest) -> RunningBroker:
    """Each of the two brokers we set up, in turn."""
    broker: RunningBroker = request.getfixturevalue(request.param)
    return broker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        room = item.path.relative_to(ROOT / "tests").parts[0]
        if room in BRIDGE_ROOMS:
            item.add_marker(pytest.mark.bridge_only)
        if item.get_closest_marker("ledger_file") and ledger_switch.IS_ON:
            item.add_marker(pytest.mark.skip(reason="does not apply: it is about the file that keeps a ledger"))
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason="the recordings are not here: no `shared` folder"))


def preventable_skips(skips: list[tuple[str, str]]) -> list[str]:
    """Return one line per skipped test, of (name, reason), that a complete machine would have run."""
    return [
        f"{name}: {reason}" for name, reason in skips if _PREVENTABLE.search(reason) and not _EXCUSED.search(reason)
    ]


def _skips(config: pytest.Config) -> list[tuple[str, str]]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    return [
        (report.nodeid, report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr))
        for report in reports
    ]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("OMI_REQUIRE_ALL") != "1" or exitstatus != pytest.ExitCode.OK:
        return
    if preventable_skips(_skips(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = preventable_skips(_skips(config)) if os.environ.get("OMI_REQUIRE_ALL") == "1" else []
    if lines:
        terminalreporter.section("OMI_REQUIRE_ALL=1: these must not be skipped", red=True, bold=True)
        for line in lines:
            terminalreporter.line(line)
