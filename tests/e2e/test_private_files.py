"""What bridge and agent write is their owner's alone, whatever the umask of the shell that started them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.conversation import EventType
from tests.e2e.system import MqttBackend, System, read_wav, sample_folder, wait_until

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """The worst umask there is; the programs inherit it."""
    before = os.umask(0)
    yield
    os.umask(before)


def others_reach(root: Path) -> list[str]:
    """Return what others than the owner may read, write or enter below `root`, and `root` itself."""
    found = []
    for path in (root, *root.rglob("*")):
        try:
            mode = stat.S_IMODE(path.lstat().st_mode)
        except FileNotFoundError:
            continue
        if mode & 0o077:
            found.append(f"{path.relative_to(root)} {mode:o}")
    return found


def test_no_file_of_bridge_or_agent_is_open_to_others(system: System, backend: MqttBackend) -> None:
    log = system.data_dir / "agent" / "agent.log"
    system.start_bridge()
    system.start_agent(OMI_LOG_FILE=str(log))
    system.allow_agent()
    samples, rate = read_wav(sample_folder() / "sample.wav")
    backend.event("private", EventType.STARTED)
    backend.audio("private", samples, encoding="pcm_s16le", sample_rate=rate, channels=1)
    assert list(system.spool.iterdir()), "the audio is on the disk"
    backend.event("private", EventType.COMPLETED, chunks=1)
    backend.updated("private")
    wait_until(log.exists, "the agent's log")
    assert others_reach(system.data_dir) == []
