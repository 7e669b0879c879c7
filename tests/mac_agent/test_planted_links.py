"""Whoever can write into a directory of the agent's cannot have the agent overwrite another file of its owner."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mac_agent.inbox import Inbox
from mac_agent.weights.manifest import Manifest, PinnedFile, read_manifest, write_manifest
from mac_agent.weights.verdict import Circumstances, StretchVerdict, verdict_file, write_verdict
from tests.inbox import WAIT_S

ROOT = Path(__file__).parents[2]
VICTIM = "what a neighbour wants to have overwritten"
FILES = (PinnedFile(path="config.yaml", sha256="0" * 64, size_bytes=1),)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text(VICTIM)
    return path


def plant(path: Path, victim: Path, pid: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / f".{path.name}.{pid or os.getpid()}").symlink_to(victim)


def test_a_manifest_is_not_written_through_a_link(tmp_path, victim):
    path = tmp_path / "trusted" / "manifest.json"
    plant(path, victim)
    manifest = Manifest(source="here", revision="1", files=FILES)
    write_manifest(path, manifest)
    assert victim.read_text() == VICTIM
    assert read_manifest(path) == manifest


def test_a_verdict_is_not_written_through_a_link(tmp_path, victim):
    circumstances = Circumstances(
        revision="f" * 64, device="cpu", machine="m", torch="2", pyannote_audio="4", omi_diarization="0"
    )
    verdict = StretchVerdict(
        passed=False,
        reasons=(),
        der=None,
        least_cosine=None,
        changed_s=0.0,
        speech_s=0.0,
        speed_up=0.0,
        comparisons=(),
        circumstances=circumstances,
        source="here",
        files=FILES,
        measured_at=datetime.now(UTC),
    )
    plant(verdict_file(tmp_path, circumstances.revision, "cpu"), victim)
    written = write_verdict(tmp_path, verdict)
    assert victim.read_text() == VICTIM
    assert not written.is_symlink()
    assert StretchVerdict.model_validate_json(written.read_bytes()) == verdict


def test_the_tag_of_the_inbox_is_not_written_through_a_link(tmp_path, victim):
    directory = tmp_path / "inbox"
    Inbox(directory).close()
    (directory / "CACHEDIR.TAG").unlink()
    (directory / "CACHEDIR.TAG").symlink_to(tmp_path / "not-there-yet")
    (directory / "1.audio").symlink_to(victim)
    inbox = Inbox(directory)
    inbox.open_file(10, "0" * 64)
    assert not (tmp_path / "not-there-yet").exists()
    assert victim.read_text() == VICTIM


# The process plants the link itself, because its name would hold the pid.
ROTATE = """
import itertools, os, sys
from pathlib import Path
from mac_agent.log_file import LogFile

path, victim = map(Path, sys.argv[1:])
clock = itertools.count(step=61)
log = LogFile(path, max_bytes=1_000, clock=lambda: next(clock))
log.take_output()
(path.parent / f".{path.name}.{os.getpid()}").symlink_to(victim)
sys.stderr.write("line\\n" * 1_000)
sys.stderr.flush()
log.rotate_if_due()
"""


def test_a_log_is_not_rotated_through_a_link(tmp_path, victim):
    log = tmp_path / "logs" / "agent.log"
    done = subprocess.run([sys.executable, "-c", ROTATE, log, victim], cwd=ROOT, check=False, timeout=WAIT_S)
    assert done.returncode == 0
    assert victim.read_text() == VICTIM
    assert log.with_name("agent.log.1").read_text() == "line\n" * 1_000
    assert not log.with_name("agent.log.1").is_symlink()
