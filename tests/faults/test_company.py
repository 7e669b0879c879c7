"""Several bridges on one ledger: whatever dies of them, of server, broker and agents, nothing is lost or doubled.

`python -m tests.faults.company_run` is the same, longer, and writes a report. The test's sizes are variables of the
environment: OMI_TEST_SEEDS=4,5 OMI_TEST_PAYLOADS=1000 OMI_TEST_FAULTS=200 OMI_TEST_BRIDGES=3.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.company import MOSQUITTO, NATS
from tests.faults.company_faults import CompanyFault, draw_faults
from tests.faults.company_run import run_once

SEEDS = [int(seed) for seed in os.environ.get("OMI_TEST_SEEDS", "1,2,3").split(",")]
PAYLOADS, FAULTS, BRIDGES = (
    int(os.environ.get(f"OMI_TEST_{name}", default))
    for name, default in (("PAYLOADS", "60"), ("FAULTS", "24"), ("BRIDGES", "2"))
)
LIMIT_S = 14_400  # a thousand payloads under two hundred faults, on a busy machine


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("broker", [MOSQUITTO, NATS])
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_dies_of_a_company_nothing_is_lost_or_doubled(tmp_path: Path, seed: int, broker: str) -> None:
    outcome = run_once(
        tmp_path / "run", seed=seed, payloads=PAYLOADS, faults=FAULTS, bridges=BRIDGES, broker=broker, report=print
    )
    assert outcome.wrong == ()
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.by_kind.total() == FAULTS


def test_the_same_seed_gives_the_same_faults_and_each_kind_comes_before_any_comes_twice() -> None:
    faults = draw_faults(1, len(CompanyFault))
    assert faults == draw_faults(1, len(CompanyFault))
    assert faults != draw_faults(2, len(CompanyFault))
    assert {fault.kind for fault in faults} == set(CompanyFault)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
