"""The reserve is a file of its own, whatever somebody has put in its place."""

import stat
from pathlib import Path

import pytest

from vps_bridge.intake.disk_reserve import FILE_NAME, DiskReserve

RESERVE_BYTES = 2**16


@pytest.mark.parametrize("planted", [".ballast", "ballast"])
def test_a_planted_link_is_never_written_through(tmp_path: Path, planted: str) -> None:
    victim, root = tmp_path / "victim", tmp_path / "bridge"
    root.mkdir()
    victim.write_text("untouched")
    (root / planted).symlink_to(victim if planted.startswith(".") else tmp_path / "nowhere")
    assert DiskReserve(root, RESERVE_BYTES).update()
    assert victim.read_text() == "untouched"
    assert not (tmp_path / "nowhere").exists()
    written = (root / FILE_NAME).lstat()
    assert stat.S_ISREG(written.st_mode)
    assert stat.S_IMODE(written.st_mode) == 0o600
    assert written.st_size == RESERVE_BYTES
    assert [path.name for path in root.iterdir()] == [FILE_NAME]


def test_what_a_crash_left_half_written_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f".{FILE_NAME}").write_bytes(b"half")
    assert DiskReserve(tmp_path, RESERVE_BYTES).update()
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
