"""A disk of a few megabytes, a tmpfs, that a test can fill."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BLOCK_BYTES = 65_536


@dataclass
class SmallDisk:
    """A mounted file system. `fill` leaves no byte free."""

    path: Path

    @property
    def filler(self) -> Path:
        return self.path / "filler"

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.path).free

    def fill(self) -> None:
        with contextlib.suppress(OSError), self.filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * min(BLOCK_BYTES, max(1, self.free_bytes)))

    def make_room(self) -> None:
        self.filler.unlink(missing_ok=True)


@contextlib.contextmanager
def mount_small_disk(path: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a small disk; skip the test, with the reason, where that is impossible."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small disk to fill cannot be mounted: it takes Linux and root")
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk to fill cannot be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
