"""The contract of a conversation store, on each of them: what a backend sent, what was written, what was undone."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from schemas.conversation import SegmentPiece, TranscriptSegment
from vps_bridge.conversations.store import (
    AlreadyWritten,
    Applied,
    Change,
    Conflict,
    Label,
    SegmentIncomplete,
    WriteNotFound,
)


def make_segment(segment_id, start_s=0.0, end_s=1.0, **fields):
    return TranscriptSegment(id=segment_id, start_s=start_s, end_s=end_s, **fields)


def speakers_of(store, conversation_id="c1"):
    return {segment.id: segment.speaker for segment in store.read(conversation_id).segments}


def test_an_unknown_conversation_is_none(store):
    assert store.read("nobody") is None
    assert store.history("nobody") == ()


def test_segments_come_back_in_order_of_time_with_padded_label_and_number(store):
    store.upsert_segments(
        "c1", 1, [make_segment("b", 5, 6, speaker="SPEAKER_3"), make_segment("a", 1, 2, speaker="SPEAKER_12")]
    )
    first, second = store.read("c1").segments
    assert (first.id, first.speaker, first.speaker_id) == ("a", "SPEAKER_12", 12)
    assert (second.id, second.speaker, second.speaker_id) == ("b", "SPEAKER_03", 3)


def test_a_label_is_applied_and_kept_when_the_backend_sends_the_segment_again(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00", text="one")])
    assert store.apply("c1", store.read("c1").revision, "k1", [Label("a", 4)]) == Applied(1)
    store.upsert_segments("c1", 2, [make_segment("a", speaker="SPEAKER_00", text="one two")])
    (segment,) = store.read("c1").segments
    assert (segment.speaker, segment.speaker_id, segment.text) == ("SPEAKER_04", 4, "one two")
    assert segment.original_speaker == "SPEAKER_00"


def test_a_human_label_from_the_backend_replaces_ours(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 4)])
    store.upsert_segments("c1", 2, [make_segment("a", speaker="SPEAKER_01", person_id="p", label_source="manual")])
    (segment,) = store.read("c1").segments
    assert segment.speaker == "SPEAKER_01"
    assert segment.is_human_labelled


def test_a_lower_revision_never_overwrites_a_higher_one(store):
    store.upsert_segments("c1", 5, [make_segment("a", text="new")])
    assert store.upsert_segments("c1", 3, [make_segment("a", text="old"), make_segment("b", text="late")])
    assert {segment.id: segment.text for segment in store.read("c1").segments} == {"a": "new", "b": "late"}


def test_a_removed_segment_stays_removed_when_an_older_event_arrives_late(store):
    store.upsert_segments("c1", 1, [make_segment("a", text="secret"), make_segment("b", 2, 3)])
    store.upsert_segments("c1", 3, [], removed=["a"])
    assert not store.upsert_segments("c1", 2, [make_segment("a", text="secret")])
    assert [segment.id for segment in store.read("c1").segments] == ["b"]


def test_a_field_that_an_update_does_not_name_stays(store):
    words = ({"text": "Hello", "start_s": 1, "end_s": 2},)
    store.upsert_segments("c1", 1, [make_segment("a", 1, 2, text="Hello", person_id="p", is_user=True, words=words)])
    assert store.upsert_segments("c1", 1, [TranscriptSegment(id="a", speaker="SPEAKER_1")])
    (segment,) = store.read("c1").segments
    assert (segment.speaker, segment.text, segment.start_s, segment.end_s) == ("SPEAKER_01", "Hello", 1, 2)
    assert (segment.person_id, segment.is_user, segment.words[0].text) == ("p", True, "Hello")


def test_a_person_who_was_named_in_the_backend_does_not_speak_another_line_that_gets_the_id(store):
    lines = [("Hello there, all of you", 0, 4), ("and a very good morning", 5, 9), ("thank you so much", 10, 14)]
    said = partial(TranscriptSegment, person_id="p", label_source="manual")
    store.upsert_segments("c1", 1, [make_segment(str(n), a, b, text=text) for n, (text, a, b) in enumerate(lines)])
    store.upsert_segments("c1", 2, [said(id="1")])
    shifted = [make_segment(str(n), a, b, text=text) for n, (text, a, b) in enumerate(lines[1:])]
    store.upsert_segments("c1", 3, shifted, removed=["2"])
    assert [segment.person_id for segment in store.read("c1").segments] == [None, None]
    assert not any(segment.is_human_labelled for segment in store.read("c1").segments)
    store.upsert_segments("c1", 2, [said(id="1")])
    assert [segment.person_id for segment in store.read("c1").segments] == [None, None], "it comes late"
    store.upsert_segments("c1", 4, [said(id="0")])
    assert [segment.person_id for segment in store.read("c1").segments] == ["p", None]


def test_a_person_still_speaks_the_first_half_of_a_line_of_which_somebody_else_said_the_same(store):
    same = {"text": "Yeah, that is so"}
    store.upsert_segments("c1", 1, [make_segment("a", 0, 4, **same), make_segment("b", 10, 14, **same)])
    store.upsert_segments("c1", 2, [TranscriptSegment(id="b", person_id="p", label_source="manual")])
    halves = [make_segment("b", 10, 12, text="Yeah, that"), make_segment("c", 12, 14, text="is so")]
    store.upsert_segments("c1", 3, [make_segment("a", 0, 4, **same), *halves])
    assert {segment.id: segment.person_id for segment in store.read("c1").segments} == {"a": None, "b": "p", "c": None}


@pytest.mark.parametrize(
    ("update", "kept"),
    [
        ({"text": "Hello  Diana"}, False),
        ({"start_s": 4.0, "end_s": 6.0}, False),
        ({"text": " Hello Diane "}, True),
        ({"start_s": 0.5, "end_s": 4.0}, True),
        ({"speaker": "SPEAKER_1"}, True),
    ],
)
def test_words_go_with_the_text_and_the_times_that_they_are_of(store, update, kept):
    words = [{"text": "Hello", "start_s": 1, "end_s": 2}, {"text": "Diane", "start_s": 2, "end_s": 3}]
    store.upsert_segments("c1", 1, [make_segment("a", 1, 3, text="Hello Diane", words=words)])
    assert store.upsert_segments("c1", 1, [TranscriptSegment(id="a", **update)])
    (segment,) = store.read("c1").segments
    assert [word.text for word in segment.words or ()] == (["Hello", "Diane"] if kept else [])


def test_words_of_a_higher_revision_stay(store):
    words = [{"text": "Hello", "start_s": 1, "end_s": 2}]
    store.upsert_segments("c1", 1, [make_segment("a", 1, 2, text="Hullo")])
    store.upsert_segments("c1", 3, [TranscriptSegment.model_validate({"id": "a", "words": words})])
    store.upsert_segments("c1", 2, [TranscriptSegment(id="a", text="Hello")])
    (segment,) = store.read("c1").segments
    assert (segment.text, [word.text for word in segment.words]) == ("Hello", ["Hello"])


def test_null_takes_away_what_was_there(store):
    given = {"text": "x", "speaker": "SPEAKER_1", "person_id": "p", "is_user": True, "label_source": "manual"}
    words = [{"text": "x", "start_s": 0, "end_s": 1}]
    store.upsert_segments("c1", 1, [make_segment("a", 1, 2, words=words, **given)])
    taken = TranscriptSegment.model_validate({"id": "a", "words": None, **dict.fromkeys(given)})
    store.upsert_segments("c1", 2, [taken])
    (segment,) = store.read("c1").segments
    assert (segment.text, segment.is_user, segment.words) == ("", False, None)
    assert (segment.speaker, segment.person_id, segment.label_source) == (None, None, None)
    assert (segment.start_s, segment.end_s) == (1, 2)
    assert not segment.is_human_labelled


def test_each_field_is_that_of_the_highest_revision_that_named_it(store):
    store.upsert_segments("c1", 1, [make_segment("a", text="one", speaker="SPEAKER_00")])
    store.upsert_segments("c1", 3, [TranscriptSegment(id="a", speaker="SPEAKER_03")])
    store.upsert_segments("c1", 2, [make_segment("a", text="two", speaker="SPEAKER_02")])
    (segment,) = store.read("c1").segments
    assert (segment.text, segment.speaker) == ("two", "SPEAKER_03"), "an event that came late has the newest text"
    assert not store.upsert_segments("c1", 2, [], removed=["a"]), "a later event has said who speaks"
    assert store.upsert_segments("c1", 3, [], removed=["a"])


def test_a_new_segment_without_times_is_refused_and_nothing_of_its_event_is_taken(store):
    store.upsert_segments("c1", 1, [make_segment("a"), make_segment("b")])
    store.upsert_segments("c1", 2, [], removed=["b"])
    for name in ("b", "new"):
        sent = [make_segment("c"), TranscriptSegment(id=name, start_s=1, speaker="SPEAKER_00")]
        with pytest.raises(SegmentIncomplete, match=rf"'{name}'.*start_s and end_s"):
            store.upsert_segments("c1", 3, sent)
    assert [segment.id for segment in store.read("c1").segments] == ["a"]
    assert not store.upsert_segments("c1", 1, [TranscriptSegment(id="b", speaker="SPEAKER_00")]), "it is older"


def test_who_speaks_is_a_person_s_word_also_where_it_comes_in_two_events(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 4)])
    store.upsert_segments("c1", 2, [TranscriptSegment(id="a", speaker="SPEAKER_00")])
    assert speakers_of(store) == {"a": "SPEAKER_04"}, "speech-to-text's label changes nothing"
    store.upsert_segments("c1", 3, [TranscriptSegment(id="a", label_source="manual")])
    assert store.read("c1").segments[0].is_human_labelled
    store.upsert_segments("c1", 4, [TranscriptSegment(id="a", speaker="SPEAKER_02")])
    assert speakers_of(store) == {"a": "SPEAKER_02"}


def test_the_same_event_twice_changes_nothing(store):
    event = [make_segment("a", text="x", speaker="SPEAKER_0", words=({"text": "x", "start_s": 0, "end_s": 1},))]
    assert store.upsert_segments("c1", 1, event)
    revision = store.read("c1").revision
    assert not store.upsert_segments("c1", 1, event)
    assert store.read("c1").revision == revision


def test_a_long_transcript_in_one_event_is_sent_and_sent_again(store, monkeypatch):
    monkeypatch.setattr("vps_bridge.conversations.sql_store.MANY_SEGMENTS", 40)

    def send(revision, text, removed=()):
        removed_ids = set(removed)
        sent = [make_segment(f"s{n}", float(n), n + 1.0, text=text) for n in range(50) if f"s{n}" not in removed_ids]
        store.upsert_segments("c1", revision, sent, removed)
        return {item.id: item.text for item in store.read("c1").segments}

    assert send(1, "first") == {f"s{n}": "first" for n in range(50)}
    assert send(3, "third", ["s7"]) == {f"s{n}": "third" for n in range(50) if n != 7}
    assert "s7" not in send(2, "second"), "an older event changes nothing"


def test_a_segment_removed_and_sent_again_can_be_labelled_again_with_the_same_evidence(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 4)])
    store.upsert_segments("c1", 2, [], removed=["a"])
    store.upsert_segments("c1", 3, [make_segment("a", speaker="SPEAKER_00")])
    assert store.apply("c1", store.read("c1").revision, "k1", [Label("a", 4)]) == Applied(2)
    assert speakers_of(store) == {"a": "SPEAKER_04"}


def test_a_write_against_an_older_reading_conflicts_and_changes_nothing(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    before = store.read("c1").revision
    store.upsert_segments("c1", 2, [make_segment("b", 2, 3)])
    assert isinstance(store.apply("c1", before, "k1", [Label("a", 1)]), Conflict)
    assert speakers_of(store) == {"a": "SPEAKER_00", "b": None}
    assert store.history("c1") == ()


def test_the_same_evidence_is_written_once(store):
    store.upsert_segments("c1", 1, [make_segment("a")])
    revision = store.read("c1").revision
    assert store.apply("c1", revision, "k1", [Label("a", 1)]) == Applied(1)
    assert store.apply("c1", revision, "k1", [Label("a", 1)]) == AlreadyWritten(1)
    assert len(store.history("c1")) == 1


@pytest.mark.parametrize(
    "label", [{"label_source": "manual"}, {"is_user": True}, {"person_id": "p"}], ids=["manual", "owner", "person"]
)
def test_a_human_label_is_refused_even_if_asked_for(store, label):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_07", **label)])
    assert isinstance(store.apply("c1", store.read("c1").revision, "k1", [Label("a", 1)]), Conflict)
    assert speakers_of(store) == {"a": "SPEAKER_07"}


def test_an_automatic_person_label_may_be_relabelled_where_the_backend_says_it_is_automatic(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_07", person_id="p", label_source="auto")])
    assert store.apply("c1", store.read("c1").revision, "k1", [Label("a", 1)]) == Applied(1)


def test_undo_brings_the_old_labels_back_and_protects_them(store):
    store.upsert_segments(
        "c1", 1, [make_segment("a", speaker="SPEAKER_00"), make_segment("b", 2, 3, speaker="SPEAKER_00")]
    )
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 1), Label("b", None)])
    assert store.undo("c1", 1) == Applied(2)
    assert speakers_of(store) == {"a": "SPEAKER_00", "b": "SPEAKER_00"}
    assert all(segment.is_human_labelled for segment in store.read("c1").segments)
    store.upsert_segments("c1", 2, [make_segment("a", speaker="SPEAKER_00")])
    assert store.read("c1").segments[0].is_human_labelled


def test_a_segment_that_was_undone_removed_and_sent_again_is_a_new_one(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 4)])
    store.undo("c1", 1)
    store.upsert_segments("c1", 2, [], removed=["a"])
    store.upsert_segments("c1", 3, [make_segment("a", speaker="SPEAKER_02")])
    (again,) = store.read("c1").segments
    assert (again.speaker, again.is_human_labelled) == ("SPEAKER_02", False)


def test_undo_leaves_what_a_later_write_changed(store):
    store.upsert_segments(
        "c1", 1, [make_segment("a", speaker="SPEAKER_00"), make_segment("b", 2, 3, speaker="SPEAKER_00")]
    )
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 1), Label("b", 1)])
    store.apply("c1", store.read("c1").revision, "k2", [Label("b", 2)])
    store.undo("c1", 1)
    assert speakers_of(store) == {"a": "SPEAKER_00", "b": "SPEAKER_02"}
    assert [(write.version, write.kind) for write in store.history("c1")] == [(1, "apply"), (2, "apply"), (3, "undo")]


def test_every_change_can_be_seen(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00"), make_segment("b", 2, 3)])
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 0), Label("b", 1)])
    (write,) = store.history("c1")
    assert [(change.segment_id, change.before, change.after) for change in write.changes] == [("b", None, "SPEAKER_01")]


def test_undoing_a_write_that_does_not_exist_names_the_remedy(store):
    store.upsert_segments("c1", 1, [make_segment("a")])
    with pytest.raises(WriteNotFound, match="omi-bridge history c1"):
        store.undo("c1", 9)


def test_of_two_writers_one_wins_and_one_conflicts(store):
    store.upsert_segments("c1", 1, [make_segment("a")])
    revision = store.read("c1").revision
    outcomes = []
    writers = [
        threading.Thread(target=lambda n=n: outcomes.append(store.apply("c1", revision, f"k{n}", [Label("a", n)])))
        for n in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sum(isinstance(outcome, Applied) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 7


PIECES = (
    SegmentPiece(start_s=0.0, end_s=0.4, first_word=0, last_word=1, speaker="SPEAKER_00", speaker_id=0),
    SegmentPiece(start_s=0.4, end_s=1.0, first_word=2, last_word=3, speaker="SPEAKER_01", speaker_id=1),
)


def cut_segment(store, **fields):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00", text="one two", **fields)])
    assert store.apply("c1", store.read("c1").revision, "k1", [Label("a", 0, PIECES)]) == Applied(1)


def pieces_of(store):
    return store.read("c1").segments[0].pieces


def test_pieces_are_kept_in_history_and_taken_back_by_an_undo(store):
    cut_segment(store)
    assert pieces_of(store) == PIECES
    assert store.apply("c1", "0", "k1", [Label("a", 0, PIECES)]) == AlreadyWritten(1)
    assert store.history("c1")[0].changes == (Change("a", "SPEAKER_00", "SPEAKER_00", (), PIECES),)
    store.undo("c1", 1)
    assert pieces_of(store) == ()
    assert isinstance(store.apply("c1", store.read("c1").revision, "k2", [Label("a", 0, PIECES)]), Conflict)


def test_a_segment_that_was_only_cut_keeps_taking_the_backends_label(store):
    cut_segment(store)
    store.upsert_segments("c1", 2, [make_segment("a", speaker="SPEAKER_05", text="one two")])
    assert speakers_of(store) == {"a": "SPEAKER_05"}
    assert pieces_of(store) == PIECES


@pytest.mark.parametrize(
    "fields",
    [{"text": "one"}, {"text": "one two", "end_s": 2.0}, {"text": "one two", "person_id": "anna"}],
    ids=["another text", "other times", "a person's label"],
)
def test_pieces_go_with_the_words_they_were_cut_from(store, fields):
    cut_segment(store)
    store.upsert_segments("c1", 2, [make_segment("a", speaker="SPEAKER_00", **fields)])
    assert pieces_of(store) == ()
