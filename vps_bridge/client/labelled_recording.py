"""Who spoke when in a recording, for a file: from the bridge's update and the transcript that was sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from schemas.conversation import ConversationUpdated, SegmentLabel, TranscriptSegment
from schemas.voice_people import Identity, VoicePerson
from vps_bridge.conversations.store import speaker_name
from vps_bridge.exports.records import ExportedConversation, ExportedLine, ExportedSpeaker, ExportedTurn

UNKNOWN = "unknown"
_People = Mapping[int, VoicePerson]
"""Who the voices are, by number."""


def describe_recording(update: ConversationUpdated, transcript: Sequence[TranscriptSegment]) -> ExportedConversation:
    """Return a recording as it is exported. People go by their ids: an update knows no names.

    Where there were too many turns for an update, the lines of the transcript stand for them.
    """
    labels = {label.id: label for label in update.segments}
    people = {person.speaker_id: person for person in update.people if person.identity != "suggested"}
    lines = [line for segment in transcript for line in _split(segment, labels.get(segment.id), people)]
    turns = [
        ExportedTurn(start_s=turn.start_s, end_s=turn.end_s, speaker=_speaker(turn.speaker_id, people))
        for turn in update.turns or ()
    ]
    if update.turns is None:
        turns = [ExportedTurn(start_s=line.start_s, end_s=line.end_s, speaker=line.speaker) for line in lines]
    return ExportedConversation(
        conversation_id=update.conversation_id,
        started_at=None,
        is_final=update.state == "final",
        updated_version=update.updated_version,
        lines=tuple(sorted(lines, key=lambda line: (line.start_s, line.end_s))),
        turns=tuple(sorted(turns, key=lambda turn: (turn.start_s, turn.end_s))),
    )


def _split(segment: TranscriptSegment, label: SegmentLabel | None, people: _People) -> Iterable[ExportedLine]:
    """Return a segment as one line, or as one for each of its pieces."""
    pieces = label.pieces if label is not None else None
    if not pieces:
        yield ExportedLine(
            segment_id=segment.id,
            start_s=segment.start_s,
            end_s=segment.end_s,
            speaker=_speaker_of(segment, label, people),
            text=segment.text,
        )
        return
    words = [word.text for word in segment.words] if segment.words else segment.text.split()
    for piece in pieces:
        yield ExportedLine(
            segment_id=segment.id,
            start_s=piece.start_s,
            end_s=piece.end_s,
            speaker=_speaker(piece.speaker_id, people, piece.speaker),
            text=" ".join(words[piece.first_word : piece.last_word + 1]),
        )


def _speaker_of(segment: TranscriptSegment, label: SegmentLabel | None, people: _People) -> ExportedSpeaker:
    """Return who speaks in a segment: whom its own label names counts before whom its voice is."""
    if label is None:
        return ExportedSpeaker(name=segment.speaker or UNKNOWN)
    if label.person_id is None:
        return _speaker(label.speaker_id, people, label.speaker)
    return _person(label.person_id, label.speaker_id, label.identity)


def _speaker(speaker_id: int | None, people: _People, label: str | None = None) -> ExportedSpeaker:
    known = people.get(speaker_id) if speaker_id is not None else None
    if known is None:
        return ExportedSpeaker(name=label or speaker_name(speaker_id) or UNKNOWN, speaker_id=speaker_id)
    return _person(known.person_id, speaker_id, known.identity)


def _person(person_id: str, speaker_id: int | None, identity: Identity | None) -> ExportedSpeaker:
    told = None if identity == "suggested" else identity
    return ExportedSpeaker(name=person_id, speaker_id=speaker_id, person_id=person_id, identity=told)
