"""What was refused and is dealt with: the command that doctor and `failed` name ends their complaint."""

import json
import time
from pathlib import Path

from typer.testing import CliRunner

from broker.check import Check
from vps_bridge.commands.main import app
from vps_bridge.doctor.file_checks import check_queue
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.refusals import RefusedChunk
from vps_bridge.rules.queue_share import QueueUse

REMEDY = ("failed", "--forget-refused")


def failures_of(data_dir: Path) -> Check:
    ledger = Ledger(data_dir / "bridge", exclusive=False)
    counts = ledger.jobs.counts()
    ledger.close()
    [check] = [
        check for check in check_queue(counts, (), time.time(), QueueUse(20_000, 10**10)) if check.name == "failures"
    ]
    return check


def command(data_dir: Path, *words: str) -> str:
    return CliRunner().invoke(app, [*words, "--data-dir", str(data_dir)]).output


def test_the_command_that_is_named_ends_the_complaint(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bridge", exclusive=True)
    for name in ("c-1", "c-2"):
        ledger.refusals.note(RefusedChunk("call", name, "0" * 64, 9, "audio.undecodable", "no audio"))
    ledger.refusals.write(float("inf"))
    ledger.close()
    assert f"omi-bridge {' '.join(REMEDY)}" in (failures_of(tmp_path).remedy or "")
    assert f"then: omi-bridge {' '.join(REMEDY)}" in command(tmp_path, "failed")
    assert json.loads(command(tmp_path, *REMEDY, "--json")) == {"forgotten": 2}
    assert failures_of(tmp_path).verdict == "ok"
    assert command(tmp_path, "failed") == "no job has failed\n"
    assert command(tmp_path, *REMEDY) == "0 refusals are forgotten\n"
