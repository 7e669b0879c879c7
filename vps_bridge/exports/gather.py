"""Reading a conversation for an export: from the ledger and the store into one record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.codec import decode
from schemas.conversation import ConversationUpdated
from vps_bridge.conversations.store import ConversationStore, StoredSegment, speaker_name
from vps_bridge.exports.records import ExportedConversation, ExportedLine, ExportedSpeaker, ExportedTurn
from vps_bridge.labelling.number import Voice, VoiceBook
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.people import NOBODY
from vps_bridge.ledger.records import ConversationRecord

UNKNOWN, USER = "unknown", "you"


@dataclass(frozen=True)
class KnownNames:
    """Who the voices of a conversation are, and what the people of its owner are called."""

    voices: Mapping[int, Voice]
    names: Mapping[str, str]

    def of_voice(self, speaker_id: int | None) -> ExportedSpeaker:
        """Return who a number is."""
        voice = self.voices.get(speaker_id) if speaker_id is not None else None
        if voice is None:
            return ExportedSpeaker(name=speaker_name(speaker_id) or UNKNOWN, speaker_id=speaker_id)
        return self.of(speaker_id, voice.person_id, voice.matched_person)

    def of_segment(self, segment: StoredSegment) -> ExportedSpeaker:
        """Return who speaks in a segment that is not cut: what a person said of it counts before what its voice is."""
        if segment.is_user:
            return ExportedSpeaker(name=USER, speaker_id=segment.speaker_id, person_id=segment.person_id, is_user=True)
        voice = self.voices.get(segment.speaker_id) if segment.speaker_id is not None else None
        person = segment.person_id or (voice.person_id if voice else None)
        return self.of(segment.speaker_id, person, segment.matched_person, label=segment.speaker)

    def of(
        self, speaker_id: int | None, person: str | None, matched: str | None, *, label: str | None = None
    ) -> ExportedSpeaker:
        """Return a speaker by what is known: a confirmed person, a matched one, a number, or a label without one."""
        found = person or matched
        if not found:
            return ExportedSpeaker(name=label or speaker_name(speaker_id) or UNKNOWN, speaker_id=speaker_id)
        return ExportedSpeaker(
            name=self.names.get(found) or found,
            speaker_id=speaker_id,
            person_id=found,
            identity="confirmed" if person else "matched",
        )


def gather_export(conversation_id: str, ledger: Ledger, store: ConversationStore) -> ExportedConversation | None:
    """Return a conversation as it is exported, or None where it was never heard of or is deleted."""
    record = ledger.conversations.get(conversation_id)
    if record is None:
        return None
    stored = store.read(conversation_id)
    told = decode(ConversationUpdated, record.updated_payload) if record.updated_payload else None
    known = KnownNames(_voices_of(record), _names_of(record.owner or NOBODY, ledger))
    lines = [line for segment in (stored.segments if stored else ()) for line in split_segment(segment, known)]
    turns = [
        ExportedTurn(start_s=turn.start_s, end_s=turn.end_s, speaker=known.of_voice(turn.speaker_id))
        for turn in ((told.turns or ()) if told is not None else ())
    ]
    return ExportedConversation(
        conversation_id=conversation_id,
        started_at=record.started_at_s,
        is_final=record.final_at is not None,
        updated_version=record.updated_version,
        lines=tuple(sorted(lines, key=lambda line: (line.start_s, line.end_s))),
        turns=tuple(sorted(turns, key=lambda turn: (turn.start_s, turn.end_s))),
    )


def _voices_of(record: ConversationRecord) -> dict[int, Voice]:
    book = VoiceBook.from_json(record.voices) if record.voices else VoiceBook()
    return {voice.speaker_id: voice for voice in book.voices}


def _names_of(owner: str, ledger: Ledger) -> dict[str, str]:
    return {person.person_id: person.name for person in ledger.people.of_owner(owner) if person.name}


def split_segment(segment: StoredSegment, known: KnownNames) -> Iterable[ExportedLine]:
    """Return a segment as one line, or as one for each of its pieces."""
    if not segment.pieces:
        yield ExportedLine(
            segment_id=segment.id,
            start_s=segment.start_s,
            end_s=segment.end_s,
            speaker=known.of_segment(segment),
            text=segment.text,
        )
        return
    words = [word.text for word in segment.words] if segment.words else segment.text.split()
    for piece in segment.pieces:
        yield ExportedLine(
            segment_id=segment.id,
            start_s=piece.start_s,
            end_s=piece.end_s,
            speaker=known.of_voice(piece.speaker_id),
            text=" ".join(words[piece.first_word : piece.last_word + 1]),
        )
