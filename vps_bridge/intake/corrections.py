"""Taking in what people correct, and what they take back: into the history, onto the segments, into the ledger.

Safe beside a running bridge: each step is one transaction, and done again it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.conversation import ConversationEvent, EventType
from schemas.corrections import Correction, CorrectionKind
from schemas.failure import FailureCode
from schemas.record import is_id
from schemas.text import is_blank
from vps_bridge.conversations.reversal import (
    corrections_in_force,
    find_root,
    find_switches,
    find_to_redo,
    find_to_undo,
)
from vps_bridge.conversations.store import ConversationStore, HumanLabel, StoreError, Write
from vps_bridge.errors import Refusal
from vps_bridge.labelling.corrections import anchors_to_json, find_anchors, kept_lines
from vps_bridge.labelling.kept_line import LineSearch, LinesNow
from vps_bridge.labelling.number import Voice, VoiceBook
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.people import NOBODY
from vps_bridge.ledger.records import ConversationRecord, CorrectionRecord

_REBUILDING = {CorrectionKind.SAME_VOICE, CorrectionKind.OTHER_VOICE}


class Corrections:
    """Corrections of all conversations, and their undoing."""

    def __init__(self, ledger: Ledger, store: ConversationStore) -> None:
        """Write into this ledger and this store."""
        self._ledger, self._store = ledger, store

    def take(self, conversation_id: str, event: ConversationEvent) -> int:
        """Take a `corrected`, `undone` or `redone` event; return its write. The same event again changes nothing.

        Raises:
            Refusal: it names what is not there, or cannot be undone as things are; nothing was changed.
        """
        if event.type is EventType.CORRECTED:
            return self.correct(conversation_id, event.event_id, event.corrections, by=event.by)
        try:
            version = self._find_target(conversation_id, event)
            key = _key(event.event_id)
            return self.reverse(
                conversation_id, version, by=event.by, write_key=key, redo=event.type is EventType.REDONE
            )
        except StoreError as error:
            raise Refusal(FailureCode.UNDO_REFUSED, str(error)) from error

    def correct(self, conversation_id: str, event_id: str, said: Sequence[Correction], *, by: str | None) -> int:
        """Take what a person says; return its write. Raises `Refusal` where it names what is not there."""
        conversation = self._ledger.conversations.get(conversation_id)
        voices = conversation.voices if conversation else None
        book = VoiceBook.from_json(voices) if voices else VoiceBook()
        stored = self._store.read(conversation_id)
        segments = stored.segments if stored else ()
        _check_known(said, book, {segment.id for segment in segments})
        # It may be said before the labels show a new transcription: the voices are those of the lines it names now.
        book = book.as_lines_are_now(LinesNow(segments))
        anchors = find_anchors(said, book, segments)
        applied = self._store.correct(conversation_id, _key(event_id), _labels(said), corrections=said, by=by)
        record = CorrectionRecord(
            write=applied.version,
            event_id=event_id,
            said=[one.model_dump(mode="json", exclude_none=True) for one in said],
            anchors=anchors_to_json(said, anchors, segments, book.lines),
            voices_before=voices,
        )
        self._introduce(conversation, said)
        self._ledger.corrections.add(conversation_id, record)
        return applied.version

    def reverse(
        self, conversation_id: str, version: int, *, by: str | None, write_key: str | None = None, redo: bool = False
    ) -> int:
        """Take a write back, or bring back what was taken; return the write that does it.

        Raises:
            StoreError: there is no such write, or it cannot be reversed as things are; the message says why.
        """
        history = self._store.history(conversation_id)
        if not any(write.write_key == write_key for write in history):
            target = (find_to_redo if redo else find_to_undo)(history, conversation_id, version)
            self._check_free(conversation_id, history, target)
        change = self._store.redo if redo else self._store.undo
        other_lines = self._find_other_lines(conversation_id, find_root(history, version))
        applied = change(conversation_id, version, by=by, write_key=write_key, other_lines=other_lines)
        self._switch(conversation_id)
        return applied.version

    def _find_target(self, conversation_id: str, event: ConversationEvent) -> int:
        if event.target_event_id is None:
            return event.target_write or 0
        key = _key(event.target_event_id)
        found = [write.version for write in self._store.history(conversation_id) if write.write_key == key]
        if not found:
            msg = "target_event_id names no event that corrected, undid or redid anything in this conversation"
            raise StoreError(msg)
        return found[0]

    def _check_free(self, conversation_id: str, history: Sequence[Write], target: Write) -> None:
        """Raise where a later correction builds on what this one made, or that its undoing made."""
        root = find_root(history, target.version)
        records = {record.write: record for record in self._ledger.corrections.of_conversation(conversation_id)}
        record = records.get(root.version) if root is not None else None
        if record is None:
            return
        _check_same_segments(conversation_id, history, record, records.values())
        if not any(one["kind"] in _REBUILDING for one in record.said):
            return
        own = VoiceBook.from_json(record.anchors).voices
        later = [record for record in records.values() if record.in_force and record.write > target.version]
        built = [other.write for other in later if _overlap(own, VoiceBook.from_json(other.anchors).voices)]
        if built:
            msg = (
                f"Write {built[-1]} of conversation {conversation_id} builds on voices that this would change. "
                f"Take that back first: omi-bridge undo {conversation_id} {built[-1]}"
            )
            raise StoreError(msg)

    def _find_other_lines(self, conversation_id: str, root: Write | None) -> set[str]:
        """Return the ids that a new transcription gave to other lines since a correction: its labels are not theirs."""
        records = {record.write: record for record in self._ledger.corrections.of_conversation(conversation_id)}
        record = records.get(root.version) if root is not None else None
        stored = self._store.read(conversation_id)
        if record is None or not record.anchors or stored is None:
            return set()
        return LineSearch(kept_lines(record.anchors), LinesNow(stored.segments)).other_lines()

    def _switch(self, conversation_id: str) -> None:
        """Put corrections out of force, or into it, as the history now says."""
        history = self._store.history(conversation_id)
        in_force = corrections_in_force(history)
        records = self._ledger.corrections.of_conversation(conversation_id)
        switched = [record for record in records if record.in_force != (record.write in in_force)]
        conversation = self._ledger.conversations.get(conversation_id)
        back = [record for record in switched if record.write in in_force]
        teaching = [
            one for record in back for one, teaches in zip(record.said, record.teaching, strict=True) if teaches
        ]
        self._introduce(conversation, [Correction.model_validate(one) for one in teaching])
        if not switched or conversation is None:
            self._ledger.conversations.note_undo(conversation_id)
            return
        stored = self._store.read(conversation_id)
        lines = LinesNow(stored.segments if stored else ())
        book = VoiceBook.from_json(conversation.voices) if conversation.voices else VoiceBook()
        book = book.without_other_lines(lines)
        for record in switched:
            if record.voices_before and not _is_overtaken(history, record, records):
                before, about = map(VoiceBook.from_json, (record.voices_before, record.anchors))
                book = book.revive(before.as_lines_are_now(lines), about.as_lines_are_now(lines))
        self._ledger.corrections.switch(
            conversation_id,
            {record.write: record.write in in_force for record in switched},
            voices_now=conversation.voices,
            voices=book.to_json(),
        )
        self._ledger.corrections.forget_unnamed(conversation_id)

    def _introduce(self, conversation: ConversationRecord | None, said: Iterable[Correction]) -> None:
        """Have its owner know whom corrections of a conversation name."""
        for person_id in _named(said):
            self._ledger.people.add((conversation.owner if conversation else None) or NOBODY, person_id)


def _is_overtaken(history: Sequence[Write], record: CorrectionRecord, records: Iterable[CorrectionRecord]) -> bool:
    """Whether another correction made other voices of its own, or was taken back, since its earlier voices were kept.

    They are kept when it is said, and each time that it is taken back or brought back. They would bring back the other
    one's change, too.
    """
    kept_at = max(find_switches(history, record.write)[:-1], default=record.write)
    then = corrections_in_force([write for write in history if write.version < kept_at])
    own = VoiceBook.from_json(record.anchors).voices
    return any(
        (other.write in then) != other.in_force and _overlap(own, VoiceBook.from_json(other.anchors).voices)
        for other in records
        if other.write != record.write and any(one["kind"] in _REBUILDING for one in other.said)
    )


def _check_same_segments(
    conversation_id: str, history: Sequence[Write], record: CorrectionRecord, records: Iterable[CorrectionRecord]
) -> None:
    """Raise where another correction labelled the same segment, and what this one would restore is not what was there.

    That is: a later one is in force, or an earlier one was when this was said and is not now, or the other way round.
    """
    in_force_then = corrections_in_force([write for write in history if write.version < record.write])
    for other in records:
        if other.write == record.write or _labelled(other).isdisjoint(_labelled(record)):
            continue
        was_there = other.write < record.write and other.write in in_force_then
        if other.in_force != was_there:
            advice = "Take that back" if other.in_force else "Bring that back"
            command = "undo" if other.in_force else "redo"
            msg = (
                f"Write {other.write} of conversation {conversation_id} labels a segment that this would change, too. "
                f"{advice} first: omi-bridge {command} {conversation_id} {other.write}"
            )
            raise StoreError(msg)


def _labelled(record: CorrectionRecord) -> set[str]:
    """Return the segments that a correction labelled one by one."""
    return {one["segment_id"] for one in record.said if one["kind"] == CorrectionKind.SEGMENT_IS}


def _labels(said: Iterable[Correction]) -> list[HumanLabel]:
    """Return one label for each segment that is labelled, also where several statements are about it.

    As in events of their own, the later counts; and a person leaves the number that was said before as it is.
    """
    labels: dict[str, HumanLabel] = {}
    for one in said:
        if one.kind is CorrectionKind.SEGMENT_IS and one.segment_id is not None:
            before = labels.get(one.segment_id)
            number = before.speaker_id if before and one.speaker_id is None else one.speaker_id
            labels[one.segment_id] = HumanLabel(one.segment_id, number, one.person_id)
    return list(labels.values())


def _key(event_id: str) -> str:
    """Return the write key of an event: the same event is written once."""
    return f"event-{event_id}"


def _named(said: Iterable[Correction]) -> list[str]:
    """Return who is said to be a voice, and may be known by it: a person's id may stand in a topic."""
    named = {one.person_id or "" for one in said if one.kind is CorrectionKind.VOICE_IS}
    return sorted(name for name in named if is_id(name))


def _check_known(said: Iterable[Correction], book: VoiceBook, segments: set[str]) -> None:
    numbers = {voice.speaker_id for voice in book.voices}
    for one in said:
        named = {*one.speaker_ids, *([] if one.speaker_id is None else [one.speaker_id])}
        missing = sorted(named - numbers)
        if missing:
            there = ", ".join(str(number) for number in sorted(numbers)) or "none yet"
            msg = f"{one.kind}: the conversation has no speaker {missing[0]}; there are: {there}"
            raise Refusal(FailureCode.CORRECTION_REFUSED, msg)
        if one.person_id is not None and is_blank(one.person_id):
            msg = f"{one.kind}: person_id has no character that can be seen: send the person's id"
            raise Refusal(FailureCode.CORRECTION_REFUSED, msg)
        wanted = {*one.segment_ids, *([] if one.segment_id is None else [one.segment_id])}
        unknown = sorted(wanted - segments)
        if unknown:
            name = f" {unknown[0]!r}" if is_id(unknown[0]) else ""
            msg = f"{one.kind}: segment{name} is not in the transcript (or was removed): send it first"
            raise Refusal(FailureCode.CORRECTION_REFUSED, msg)


def _overlap(one: Iterable[Voice], other: Iterable[Voice]) -> bool:
    """Whether any two of these voices have a number, a local speaker or a segment in common."""

    def parts(voices: Iterable[Voice]) -> set[object]:
        return {part for voice in voices for part in (voice.speaker_id, *voice.members, *voice.segments)}

    return not parts(one).isdisjoint(parts(other))
