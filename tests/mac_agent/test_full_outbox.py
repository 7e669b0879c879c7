"""An outbox on a disk without room: nothing it holds is lost, and the file catches up."""

import pytest

from mac_agent.outbox import SAVE_AGAIN_S, EntryKind, Outbox, OutboxEntry
from tests.faults.small_disk import SmallDisk, mount_small_disk
from tests.hand_clock import HandClock


@pytest.fixture
def disk(tmp_path):
    with mount_small_disk(tmp_path / "disk", 2**20) as small:
        yield small


def open_outbox(disk: SmallDisk, clock: HandClock) -> Outbox:
    return Outbox(disk.path / "outbox.sqlite", retry_s=15, retry_max_s=300, clock=clock)


def entry(job_id: str) -> OutboxEntry:
    return OutboxEntry(job_id, "lease-1", "ledger-1", "conversation-1", EntryKind.TURNS, b"turns" * 2_000)


def test_what_a_full_disk_refused_is_offered_at_once_and_stored_later(disk):
    clock = HandClock()
    outbox = open_outbox(disk, clock)
    outbox.put(entry("settled"))
    disk.fill()
    outbox.put(entry("new"))
    outbox.settle("settled")
    outbox.tidy()
    assert [each.job_id for each in outbox.due()] == ["new"]
    disk.make_room()
    clock.now_s += SAVE_AGAIN_S
    outbox.tidy()
    again = open_outbox(disk, clock)  # as after a kill: what the file says by itself
    assert [each.job_id for each in again.entries()] == ["new"]
    again.close()
    outbox.close()
