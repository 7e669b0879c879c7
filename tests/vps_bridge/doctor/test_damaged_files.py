"""A damaged file ends no doctor: it is named, or the damage lies where nothing is."""

import random
from pathlib import Path

import pytest

from broker.check import CheckState
from vps_bridge.conversations.open_store import open_store
from vps_bridge.conversations.sqlite import STORE_FILE
from vps_bridge.doctor.file_checks import check_files
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.ledger import FILE_NAME
from vps_bridge.settings import BridgeSettings

PAGE_BYTES = 4096


@pytest.fixture
def settings(tmp_path: Path) -> BridgeSettings:
    """A bridge that has begun, and does not run."""
    settings = BridgeSettings(data_dir=tmp_path)
    Ledger(settings.root, exclusive=True).close()
    open_store(settings).close()
    return settings


def damage(file: Path, seed: int) -> None:
    """Overwrite some bytes, or some pages, anywhere in a file."""
    drawn, data = random.Random(seed), bytearray(file.read_bytes())
    start, count = drawn.randrange(len(data)), drawn.choice((8, 100, PAGE_BYTES, 40 * PAGE_BYTES))
    data[start : start + count] = drawn.randbytes(len(data[start : start + count]))
    file.write_bytes(data)


@pytest.mark.parametrize("name", [FILE_NAME, STORE_FILE])
def test_a_file_damaged_anywhere_is_named_and_the_other_one_is_still_checked(
    settings: BridgeSettings, name: str
) -> None:
    file, found = settings.root / name, 0
    whole = file.read_bytes()
    for seed in range(40):
        damage(file, seed)
        checks, ledger = check_files(settings)
        verdicts = {check.name: check for check in checks}
        damaged, other = ("ledger", "conversations") if name == FILE_NAME else ("conversations", "ledger")
        assert verdicts[other].verdict is CheckState.OK, seed
        if verdicts[damaged].verdict is CheckState.FAILED:
            assert "restore a backup" in f"{verdicts[damaged].found} {verdicts[damaged].remedy}"
            found += 1
        if ledger is not None:
            ledger.jobs.counts()  # what goes on to be read can be read
            ledger.close()
        for log in settings.root.glob(f"{name}-*"):
            log.unlink(missing_ok=True)
        file.write_bytes(whole)
    assert found > 10


def test_a_ledger_taken_away_from_under_its_bridge_is_not_called_a_new_one(tmp_path: Path) -> None:
    settings = BridgeSettings(data_dir=tmp_path)
    [fresh, *_], _ = check_files(settings)
    assert fresh.verdict == "note"
    running = Ledger(settings.root, exclusive=True)
    (settings.root / FILE_NAME).rename(tmp_path / "moved")
    [ledger, *_], _ = check_files(settings)
    running.close()
    assert ledger.verdict == "failed"
    assert "Put it back before" in (ledger.remedy or "")
