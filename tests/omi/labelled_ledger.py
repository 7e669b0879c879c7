"""A ledger with a conversation of OMI's, whose labels a sender takes to OMI's API."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schemas.codec import encode
from schemas.conversation import ConversationEvent, ConversationUpdated, EventType, SegmentLabel, Verdict
from schemas.people import PersonEvent, PersonEventType
from tests.omi.omi_api import ADMIN_KEY, FakeApi, run_api
from tests.vps_bridge.live_bridge import wait_until
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.omi_conversations import OmiConversationRecord
from vps_bridge.omi.api import OmiApi
from vps_bridge.omi.labels_back import LabelSender
from vps_bridge.settings import BridgeSettings

NAME, UID = "c1", "u1"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with run_api() as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(tmp_path / "bridge", exclusive=True)
    add(book, NAME)
    yield book
    book.close()


@pytest.fixture
def counts() -> CaptureCounts:
    return CaptureCounts()


@pytest.fixture
def sender(tmp_path: Path, api: FakeApi, ledger: Ledger, counts: CaptureCounts) -> Iterator[LabelSender]:
    del ledger
    with run_sender(tmp_path, api, counts) as running:
        yield running


@contextmanager
def run_sender(root: Path, api: FakeApi, counts: CaptureCounts) -> Iterator[LabelSender]:
    """One that tries again soon."""
    settings = BridgeSettings(data_dir=root, retry_min_s=0.05, retry_max_s=0.1)
    running = LabelSender(settings, OmiApi("http", "127.0.0.1", api.port, "", ADMIN_KEY), counts)
    yield running
    running.close()
    running.join()


def know(ledger: Ledger, person: str, name: str, *, is_owner: bool = False) -> None:
    ledger.people.add(UID, person)
    kind = PersonEventType.OWNER if is_owner else PersonEventType.NAMED
    for place, one in enumerate({PersonEventType.NAMED, kind}):
        fields = {"name": name} if one is PersonEventType.NAMED else {}
        event = PersonEvent(event_id=f"{person}-{place}", type=one, owner=UID, revision=place, **fields)  # type: ignore[arg-type]
        ledger.people.note(person, event, Verdict.ACCEPTED)


def update(ledger: Ledger, version: int, *labels: SegmentLabel, name: str = NAME) -> None:
    """Labels as the bridge writes them."""
    payload = encode(ConversationUpdated(conversation_id=name, updated_version=version, state="final", segments=labels))
    made = AssignedUpdate([], f"key-{version}", payload, final=True, done_jobs=(), seen=0)
    ledger.conversations.note_update(name, made)


def add(ledger: Ledger, name: str, uid: str = UID) -> None:
    event = ConversationEvent(event_id=f"e-{name}", type=EventType.STARTED, owner=uid)
    ledger.events.note(event, name, Verdict.ACCEPTED)
    ledger.omi.put(OmiConversationRecord(name, uid, 0.0, 10.0, 1, "", waits=False), {"known": ["s9"]})


def matched(segment_id: str, person: str) -> SegmentLabel:
    return SegmentLabel(id=segment_id, person_id=person, identity="matched")


def all_told(ledger: Ledger) -> None:
    wait_until(lambda: ledger.omi.next_untold(()) is None, "all to be told")
