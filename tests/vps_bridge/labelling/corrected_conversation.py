"""A conversation with a real ledger and a real store, whose results a test hands in: corrections without processes."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from schemas.conversation import ConversationEvent, EventType, TranscriptSegment, Verdict
from schemas.corrections import Correction
from tests.vps_bridge.labelling.test_relabel import POLICY, T0
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.conversations.store import StoredConversation
from vps_bridge.intake.corrections import Corrections
from vps_bridge.labelling.corrections import read_kept
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.labelling.relabel import ConversationEvidence, Relabelling, relabel
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.rules.assemble import ChunkInfo

NAME = "c1"


class CorrectedConversation:
    """Results come with `hear`, words of people with `correct`; every step works the labels out again."""

    def __init__(self, root, segments: tuple[TranscriptSegment, ...]) -> None:
        self.ledger = Ledger(root, exclusive=True)
        self.store = SqliteConversations(root / "conversations.sqlite3")
        self.corrections = Corrections(self.ledger, self.store)
        self.chunks: tuple[ChunkInfo, ...] = ()
        self.jobs: tuple[JobEvidence, ...] = ()
        self._events, self._transcriptions = 0, 1
        self.store.upsert_segments(NAME, 1, segments)
        self.ledger.events.note(self._event(EventType.SEGMENTS), NAME, Verdict.ACCEPTED)

    def close(self) -> None:
        self.store.close()
        self.ledger.close()

    def hear(self, chunks: tuple[ChunkInfo, ...], jobs: tuple[JobEvidence, ...]) -> Relabelling:
        """Take all audio and results that there are now."""
        self.chunks, self.jobs = chunks, jobs
        return self.relabel()

    def correct(self, **said: Any) -> int:
        return self.correct_at_once(said)

    def correct_at_once(self, *said: dict[str, Any]) -> int:
        """Say several things in one event: all are about the voices as they were before it."""
        self._events += 1
        statements = [Correction.model_validate(one) for one in said]
        write = self.corrections.correct(NAME, f"e-{self._events}", statements, by="anna")
        self.relabel()
        return write

    def correct_unseen(self, *said: dict[str, Any]) -> int:
        """Say things in one event each, before the labels show any of it; return the write of the last."""
        for one in said:
            self._events += 1
            write = self.corrections.correct(NAME, f"e-{self._events}", [Correction.model_validate(one)], by="anna")
        self.relabel()
        return write

    def undo(self, version: int) -> int:
        write = self.corrections.reverse(NAME, version, by="anna")
        self.relabel()
        return write

    def redo(self, version: int) -> int:
        write = self.corrections.reverse(NAME, version, by="anna", redo=True)
        self.relabel()
        return write

    def transcribe_anew(self, segments: tuple[TranscriptSegment, ...]) -> None:
        """Take these lines, and no others any more."""
        self.send_unseen(segments)
        self.relabel()

    def send_unseen(self, segments: tuple[TranscriptSegment, ...]) -> None:
        """Take these lines, and no others any more; no label shows it yet."""
        known = {one.id for one in segments}
        self._store(segments, removed=tuple(one.id for one in self._stored.segments if one.id not in known))

    def send_back(self) -> None:
        """Let the backend send the lines as they show here, their people as names of its own."""
        shown = [
            TranscriptSegment(
                id=one["id"], start_s=one["start_s"], end_s=one["end_s"], text=one["text"],
                person_id=one["person_id"], label_source="auto",
            )
            for one in self.segments
        ]  # fmt: skip
        self._take(tuple(shown))

    def edit_a_line(self, draw: random.Random) -> None:
        """Let the backend change one line, say nothing new of it, or take it away and send it again."""
        line = draw.choice(self._stored.segments)
        whole = {"start_s": line.start_s, "end_s": line.end_s, "text": line.text, "speaker": "SPEAKER_00"}
        shorter = {"start_s": line.start_s + 0.1, "end_s": line.end_s - 0.1}
        ways: list[dict[str, Any]] = [{"text": f"{line.text} mended"}, {"speaker": None}, shorter, {}, whole]
        fields = draw.choice(ways)
        if fields is whole:
            self._take((), removed=(line.id,))
        self._take((TranscriptSegment.model_validate({"id": line.id, **fields}),))

    def _take(self, segments: tuple[TranscriptSegment, ...], removed: tuple[str, ...] = ()) -> None:
        self._store(segments, removed)
        self.relabel()

    def _store(self, segments: tuple[TranscriptSegment, ...], removed: tuple[str, ...]) -> None:
        self._transcriptions += 1
        self.store.upsert_segments(NAME, self._transcriptions, segments, removed=removed)

    def relabel(self) -> Relabelling:
        found = label_anew(self.ledger, self.store, NAME, self.chunks, self.jobs)
        for one in found.corrections:
            assert (one.reason is None) == (one.outcome == "spread"), f"{one}: what was not done as asked says why"
        made = AssignedUpdate(found.voices.to_json(), found.write_key, b"", False, (), 0)
        self.ledger.conversations.note_update(NAME, made)
        self.found = found
        return found

    @property
    def _stored(self) -> StoredConversation:
        stored = self.store.read(NAME)
        assert stored is not None
        return stored

    @property
    def segments(self) -> list[dict[str, Any]]:
        """The segments as JSON, and who their voices are."""
        persons = {label.id: label.person_id for label in self.found.segments}
        return [asdict(segment) | {"person_id": persons[segment.id]} for segment in self._stored.segments]

    @property
    def speakers(self) -> dict[str, str | None]:
        return {segment.id: segment.speaker for segment in self._stored.segments}

    @property
    def persons(self) -> dict[str, str | None]:
        return {label.id: label.person_id for label in self.found.segments}

    @property
    def outcomes(self) -> list[tuple[int, str, str | None]]:
        return [(one.write, one.outcome, one.reason) for one in self.found.corrections]

    def _event(self, kind: EventType) -> ConversationEvent:
        return ConversationEvent(event_id="e-0", type=kind)


def label_anew(
    ledger: Ledger,
    store: SqliteConversations,
    name: str,
    chunks: tuple[ChunkInfo, ...],
    jobs: tuple[JobEvidence, ...],
) -> Relabelling:
    """Work a conversation's labels out of all that there is now, and write them into the store."""
    conversation, stored = ledger.conversations.get(name), store.read(name)
    assert conversation is not None
    assert stored is not None
    kept = [record for record in ledger.corrections.of_conversation(name) if record.in_force]
    evidence = ConversationEvidence(
        name,
        chunks,
        jobs,
        stored.segments,
        started_at_s=T0,
        voices=VoiceBook.from_json(conversation.voices) if conversation.voices else VoiceBook(),
        corrections=tuple(one for record in kept for one in read_kept(record)),
    )
    found = relabel(evidence, POLICY)
    if found.labels:
        store.apply(name, stored.revision, found.write_key, found.labels)
    return found


@contextmanager
def open_conversation(segments: tuple[TranscriptSegment, ...]) -> Iterator[CorrectedConversation]:
    """A conversation in a folder of its own, whose empty databases are copied: many examples each need new ones."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(_empty_databases().name, folder, dirs_exist_ok=True)
        made = CorrectedConversation(Path(folder), segments)
        try:
            yield made
        finally:
            made.close()


@cache
def _empty_databases() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    Ledger(Path(folder.name), exclusive=True).close()
    SqliteConversations(Path(folder.name) / "conversations.sqlite3").close()
    return folder
