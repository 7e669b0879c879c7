"""A recording's lines and turns as its files tell them, of an update and the transcript that was sent."""

from schemas.conversation import ConversationUpdated, TranscriptSegment, Word
from vps_bridge.client.labelled_recording import describe_recording


def test_pieces_are_lines_of_their_own_and_lines_stand_for_turns_that_were_too_many() -> None:
    words = tuple(Word(text=text, start_s=at_s, end_s=at_s + 1) for at_s, text in enumerate(("well", "yes", "no")))
    segments = (
        TranscriptSegment(id="a", start_s=0.0, end_s=3.0, text="well yes no", words=words),
        TranscriptSegment(id="b", start_s=3.0, end_s=4.0, text="hm", speaker="SPEAKER_07"),
    )
    pieces = [
        {"start_s": 0, "end_s": 1, "first_word": 0, "last_word": 0, "speaker": "SPEAKER_00", "speaker_id": 0},
        {"start_s": 1, "end_s": 3, "first_word": 1, "last_word": 2, "speaker": "SPEAKER_01", "speaker_id": 1},
    ]
    known = [{"speaker_id": 1, "person_id": "anna", "identity": "matched"}]
    label = {"id": "a", "speaker": "SPEAKER_01", "speaker_id": 1, "pieces": pieces}
    message = {"conversation_id": "c", "updated_version": 1, "state": "final", "segments": [label], "people": known}
    found = describe_recording(ConversationUpdated.model_validate(message), segments)
    expected = [(0.0, "SPEAKER_00", "well"), (1.0, "anna", "yes no"), (3.0, "SPEAKER_07", "hm")]
    assert [(line.start_s, line.speaker.name, line.text) for line in found.lines] == expected
    assert [(turn.start_s, turn.speaker.name) for turn in found.turns] == [each[:2] for each in expected]


def test_whom_a_segment_names_counts_before_its_voice_and_what_nobody_confirmed_is_told_apart() -> None:
    lines = tuple(TranscriptSegment(id=name, start_s=at_s, end_s=at_s + 1.0) for at_s, name in enumerate("ab"))
    matched = {"speaker": "SPEAKER_00", "speaker_id": 0, "person_id": "ben", "identity": "matched"}
    labels = [{"id": "a", **matched}, {"id": "b", **matched, "person_id": "anna", "identity": "confirmed"}]
    known = [{"speaker_id": 0, "person_id": "ben", "identity": "matched"}]
    turn = {"start_s": 0.0, "end_s": 2.0, "speaker_id": 0}
    message = {"conversation_id": "c", "updated_version": 1, "state": "final", "turns": [turn]}
    update = ConversationUpdated.model_validate(message | {"segments": labels, "people": known})
    found = describe_recording(update, lines)
    assert [line.speaker.shown_name for line in found.lines] == ["ben (matched)", "anna"]
    assert [line.speaker.identity for line in found.lines] == ["matched", "confirmed"]
    assert [turn.speaker.shown_name for turn in found.turns] == ["ben (matched)"]
