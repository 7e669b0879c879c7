"""A talk that OMI reported, in a bridge without processes: its reports, its labels, and what is sent back to OMI."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from schemas.codec import encode
from schemas.conversation import Accepted, ConversationEvent, ConversationUpdated, EventType, Verdict
from schemas.people import PersonEvent, PersonEventType
from tests.omi.simulated_omi import SimulatedOmi
from tests.omi.traffic import make_document
from tests.vps_bridge.dispatch.lease_model import SimulatedWire
from tests.vps_bridge.labelling.corrected_conversation import label_anew
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation
from tests.vps_bridge.labelling.test_relabel import T0
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.intake.disk_reserve import DiskReserve
from vps_bridge.intake.ingest import Ingest
from vps_bridge.intake.spool import Spool
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.relabel import Relabelling
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.omi.documents import read_conversation
from vps_bridge.omi.labels_back import LabelDelivery
from vps_bridge.omi.live import LiveConversations
from vps_bridge.omi.report import Report, Reporter, hash_body
from vps_bridge.settings import BridgeSettings

UID = "u1"
LONG_S = 1_000.0
"""Longer than any pause after a failure."""


class LabelledTalk:
    """Every step works the labels out again, as the bridge does."""

    def __init__(self, root: Path, omi: SimulatedOmi, drawn: DrawnConversation) -> None:
        self._settings = BridgeSettings(data_dir=root, ballast_bytes=65536)
        self.ledger = Ledger(root, exclusive=True)
        self.store = SqliteConversations(root / "conversations.sqlite3")
        reserve = DiskReserve(root, 0)
        wire: Any = SimulatedWire()  # the bridge only sends through it
        self._ingest = Ingest(self._settings, self.ledger, Spool(root / "spool"), self.store, wire, reserve)
        self._omi, self._drawn = omi, drawn
        self.jobs: tuple[JobEvidence, ...] = ()
        self.names: dict[str, set[str]] = {}
        self._events, self._version, self._steady_s = 0, 0, 0.0
        intake: Any = self  # it takes events alone
        self._reporter = Reporter(intake, self.ledger, self.store, LiveConversations(intake, self.ledger))
        self.start_again()

    def close(self) -> None:
        self.store.close()
        self.ledger.close()

    def start_again(self) -> None:
        """Forget what is not in the ledger."""
        api: Any = self._omi
        self._delivery = LabelDelivery(self._settings, api, CaptureCounts())

    def take_event(self, conversation_id: str, data: bytes) -> Accepted | None:
        return self._ingest.take_event(conversation_id, data).receipt

    def report(self, rows: list[dict[str, Any]], posts: int, later_s: float = 0.0) -> None:
        """Take what OMI reports of these rows, and that it began so much later."""
        document = make_document(self._name, T0 + later_s, rows) | {"posts": posts}
        body = json.dumps(document).encode()
        self._reporter.take(Report(UID, read_conversation(body), hash_body(body), T0 + 1_000))
        self.relabel()

    def correct(self, **said: Any) -> str | None:
        """Take what a person says here; return the event's id if it is accepted."""
        return self._take_words(EventType.CORRECTED, corrections=(said,))

    def take_back(self, event_id: str) -> str | None:
        """Take back what a person said here."""
        return self._take_words(EventType.UNDONE, target_event_id=event_id)

    def bring_back(self, event_id: str) -> str | None:
        """Bring back what was taken back."""
        return self._take_words(EventType.REDONE, target_event_id=event_id)

    def _take_words(self, kind: EventType, **fields: Any) -> str | None:
        self._events += 1
        event_id = f"e-{self._events}"
        event = ConversationEvent.model_validate({"event_id": event_id, "type": kind, **fields})
        receipt = self.take_event(self._name, encode(event))
        self.relabel()
        return event_id if receipt is not None and receipt.verdict is Verdict.ACCEPTED else None

    def know(self, person: str, kind: PersonEventType, **fields: Any) -> None:
        """Take what is said of a person."""
        self._events += 1
        event = PersonEvent(event_id=f"p-{self._events}", type=kind, owner=UID, revision=self._events, **fields)
        self.ledger.people.note(person, event, Verdict.ACCEPTED)
        if kind is PersonEventType.NAMED:
            self.names.setdefault(person, set()).add(fields["name"])

    def forget(self, person: str) -> None:
        """Delete a person here."""
        self.ledger.people.forget(UID, person)
        self.relabel()

    def hear(self, jobs: tuple[JobEvidence, ...]) -> None:
        """Take all results that there are now."""
        self.jobs = jobs
        self.relabel()

    def relabel(self) -> Relabelling:
        chunks = self._drawn.chunks if self.jobs else ()
        self.found = found = label_anew(self.ledger, self.store, self._name, chunks, self.jobs)
        self._version += 1
        update = ConversationUpdated(
            conversation_id=self._name, updated_version=self._version, state="final", segments=tuple(found.segments)
        )
        made = AssignedUpdate(found.voices.to_json(), found.write_key, encode(update), True, (), 0)
        self.ledger.conversations.note_update(self._name, made)
        return found

    def send(self, most: int = 50) -> bool:
        """Send what waits to OMI, so often at most; return whether nothing waits any more."""
        for _ in range(most):
            self._steady_s += LONG_S
            with patch.object(time, "monotonic", lambda: self._steady_s):
                self._delivery.send_due(self.ledger)
            if self.ledger.omi.next_untold(()) is None:
                return True
        return False

    @property
    def _name(self) -> str:
        return self._omi.name

    def store_person(self, segment_id: str) -> str | None:
        """Return the person whom a line's own label names."""
        stored = self.store.read(self._name)
        assert stored is not None
        return next(line.person_id for line in stored.segments if line.id == segment_id)

    @property
    def persons(self) -> dict[str, str | None]:
        """Whom each line names for sure."""
        sure = ("matched", "confirmed")
        return {label.id: label.person_id if label.identity in sure else None for label in self.found.segments}

    @property
    def by_hand(self) -> set[str]:
        """The lines that a person labelled."""
        stored = self.store.read(self._name)
        return {line.id for line in (stored.segments if stored else ()) if line.is_human_labelled}

    @property
    def numbers(self) -> dict[str, int | None]:
        return {label.id: label.speaker_id for label in self.found.segments}


@contextmanager
def open_talk(omi: SimulatedOmi, drawn: DrawnConversation) -> Iterator[LabelledTalk]:
    """A talk in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        made = LabelledTalk(Path(folder), omi, drawn)
        try:
            yield made
        finally:
            made.close()
