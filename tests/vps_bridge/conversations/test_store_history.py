"""The contract of a conversation store, on each of them: history, two who write at once, exact texts and numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from schemas.conversation import SegmentPiece, TranscriptSegment
from schemas.corrections import Correction
from tests.vps_bridge.conversations.test_store import make_segment, speakers_of
from vps_bridge.conversations.store import (
    AlreadyWritten,
    Applied,
    Conflict,
    ConversationStore,
    HumanLabel,
    Label,
    UndoRefused,
)

OpenStore = Callable[[], ConversationStore]
ODD_TEXT = 'nul \0 here, \ufdd0, "quotes", \\0, emoji 🎙, ẞ, line\u2028end, a\tb, 漢字, \u202ertl'
PIECES = (
    SegmentPiece(start_s=0.1, end_s=0.30000000000000004, first_word=0, last_word=0, speaker="SPEAKER_00", speaker_id=0),
    SegmentPiece(start_s=0.3, end_s=1.0, first_word=1, last_word=1, estimated=True),
)


def said(segment_id: str, speaker_id: int) -> tuple[list[HumanLabel], list[Correction]]:
    correction = Correction.model_validate({"kind": "segment_is", "segment_id": segment_id, "speaker_id": speaker_id})
    return [HumanLabel(segment_id, speaker_id)], [correction]


def correct(store: ConversationStore, key: str, segment_id: str, speaker_id: int, by: str | None = None) -> Applied:
    labels, corrections = said(segment_id, speaker_id)
    return store.correct("c1", key, labels, corrections=corrections, by=by)


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What each returned or raised, all of them begun together."""
    gate = threading.Barrier(len(works))
    results: dict[int, Any] = {}

    def run(place: int, work: Callable[[], Any]) -> None:
        gate.wait()
        try:
            results[place] = work()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results[place] = error

    threads = [threading.Thread(target=run, args=one) for one in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[place] for place in range(len(works))]


@pytest.fixture
def pair(open_store: OpenStore) -> Sequence[ConversationStore]:
    """The same store, opened twice: the bridge and a command."""
    first, second = open_store(), open_store()
    first.upsert_segments("c1", 1, [make_segment(name, place, place + 1.0) for place, name in enumerate("ab")])
    return first, second


def test_what_one_wrote_the_other_reads_at_once(pair):
    first, second = pair
    assert first.apply("c1", second.read("c1").revision, "k1", [Label("a", 4)]) == Applied(1)
    assert second.read("c1") == first.read("c1")
    assert second.history("c1") == first.history("c1")
    assert second.apply("c1", "any", "k1", [Label("a", 4)]) == AlreadyWritten(1)


def test_of_two_that_write_at_once_from_the_same_reading_one_wins(pair):
    revision = pair[0].read("c1").revision
    outcomes = at_once(
        *(
            lambda store=store, n=n: store.apply("c1", revision, f"k{n}", [Label("a", n)])
            for n, store in enumerate(pair)
        )
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Applied", "Conflict"]
    (write,) = pair[0].history("c1")
    assert [change.after for change in write.changes] == [pair[1].read("c1").segments[0].speaker]


def test_two_people_who_correct_at_once_are_both_heard(pair):
    done = at_once(lambda: correct(pair[0], "e1", "a", 1, "anna"), lambda: correct(pair[1], "e2", "b", 2, "ben"))
    assert sorted(applied.version for applied in done) == [1, 2]
    assert speakers_of(pair[0]) == {"a": "SPEAKER_01", "b": "SPEAKER_02"}
    assert {write.by for write in pair[1].history("c1")} == {"anna", "ben"}


def test_the_same_correction_twice_at_once_is_one(pair):
    assert at_once(*(lambda store=store: correct(store, "e1", "a", 1) for store in pair)) == [Applied(1), Applied(1)]
    assert len(pair[0].history("c1")) == 1


def test_two_events_of_a_new_conversation_at_once_both_come_in(pair):
    sent = [
        lambda n=n, store=store: store.upsert_segments("new", n, [make_segment(f"s{n}")])
        for n, store in enumerate(pair)
    ]
    assert at_once(*sent) == [True, True]
    assert [segment.id for segment in pair[0].read("new").segments] == ["s0", "s1"]


def test_one_who_undoes_and_one_who_relabels_at_once_leave_a_history_that_explains_the_labels(pair):
    first, second = pair
    revision = first.read("c1").revision
    assert first.apply("c1", revision, "k1", [Label("a", 4)]) == Applied(1)
    now = second.read("c1").revision
    undone, applied = at_once(lambda: first.undo("c1", 1), lambda: second.apply("c1", now, "k2", [Label("a", 5)]))
    if isinstance(applied, Conflict):
        assert (undone, speakers_of(first)["a"]) == (Applied(2), None)
    else:
        assert (applied, undone, speakers_of(first)["a"]) == (Applied(2), Applied(3), "SPEAKER_05")
    versions = [write.version for write in second.history("c1")]
    assert versions == list(range(1, len(versions) + 1))


def test_a_history_of_every_kind_of_write_is_told_in_order_and_reversed_in_order(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 1)])
    correct(store, "e1", "a", 2, "anna")
    assert store.read("c1").segments[0].is_human_labelled
    assert store.undo("c1", 2, by="ben") == Applied(3)
    assert speakers_of(store) == {"a": "SPEAKER_01"}
    assert not store.read("c1").segments[0].is_human_labelled
    assert store.redo("c1", 2, by="ben") == Applied(4)
    assert speakers_of(store) == {"a": "SPEAKER_02"}
    assert store.undo("c1", 4) == Applied(5)
    with pytest.raises(UndoRefused, match="undone already"):
        store.undo("c1", 2)
    history = store.history("c1")
    assert [(write.kind, write.by, write.undoes) for write in history] == [
        ("apply", None, None),
        ("correct", "anna", None),
        ("undo", "ben", 2),
        ("redo", "ben", 3),
        ("undo", None, 4),
    ]
    assert [one.speaker_id for one in history[1].corrections] == [2]
    assert history[1].changes[0].origin_after.is_corrected


def test_an_undo_asked_for_twice_under_one_key_is_one(store):
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00")])
    store.apply("c1", store.read("c1").revision, "k1", [Label("a", 1)])
    assert [store.undo("c1", 1, write_key="u1") for _ in range(2)] == [Applied(2), Applied(2)]
    assert [store.redo("c1", 1, write_key="r1") for _ in range(2)] == [Applied(3), Applied(3)]


def test_a_person_may_speak_of_a_conversation_without_a_transcript(store):
    assert store.correct("c1", "e1", [HumanLabel("nowhere", 1)], corrections=[], by="anna") == Applied(1)
    assert store.read("c1").segments == ()
    assert store.history("c1")[0].by == "anna"


def test_text_words_numbers_and_names_come_back_exactly_as_they_came(open_store):
    words = [{"text": ODD_TEXT[:40], "start_s": 0.1, "end_s": 1 / 3}, {"text": "", "start_s": -0.0, "end_s": 1e-7}]
    given: dict[str, Any] = {
        "text": ODD_TEXT,
        "speaker": "Zoë \0",
        "person_id": "ö/\0?",
        "label_source": "auto",
        "words": words,
    }
    segment = TranscriptSegment(id="ü \U0001f5e3", start_s=0.1 + 0.2, end_s=604800, **given)
    first, second = open_store(), open_store()
    assert first.upsert_segments("c1", 1, [segment])
    assert not second.upsert_segments("c1", 1, [segment]), "the same again changes nothing"
    label = Label(segment.id, 7, PIECES, matched_person="ö\0")
    assert first.apply("c1", second.read("c1").revision, "k\U0001f511", [label]) == Applied(1)
    (read,) = second.read("c1").segments
    assert (read.id, read.text, read.original_speaker, read.person_id) == (segment.id, ODD_TEXT, "Zoë \0", "ö/\0?")
    assert (read.start_s, read.end_s, read.words, read.pieces) == (segment.start_s, 604800, segment.words, PIECES)
    assert (read.speaker, read.matched_person) == ("SPEAKER_07", "ö\0")
    (change,) = second.history("c1")[0].changes
    assert (change.segment_id, change.before, change.after) == (segment.id, "Zoë \0", "SPEAKER_07")
    assert change.pieces_after == PIECES


def test_segments_of_one_time_are_sorted_by_the_characters_of_their_ids(store):
    store.upsert_segments("c1", 1, [make_segment(name) for name in ("b", "B", "ä", "a-1", "a_1", "a1", "A")])
    assert [segment.id for segment in store.read("c1").segments] == ["A", "B", "a-1", "a1", "a_1", "b", "ä"]


def test_deletion_leaves_nothing_of_one_conversation_and_all_of_the_others(open_store):
    first, second = open_store(), open_store()
    for name in ("c1", "c2"):
        first.upsert_segments(name, 1, [make_segment("a", text="secret")])
        first.apply(name, first.read(name).revision, "k1", [Label("a", 1)])
    kept = second.read("c2")
    second.delete("c1")
    second.delete("c1")
    second.delete("never-there")
    second.forget_deleted_pages()
    assert (first.read("c1"), first.history("c1")) == (None, ())
    assert first.read("c2") == kept
    assert len(first.history("c2")) == 1


def test_a_write_that_is_taken_back_leaves_a_line_that_has_the_id_since(open_store: OpenStore) -> None:
    store = open_store()

    def send(revision: int, start_s: float, text: str) -> None:
        line = make_segment("a", start_s=start_s, end_s=start_s + 4.0, text=text, speaker="SPEAKER_00")
        store.upsert_segments("c1", revision, [line])

    def write(key: str) -> None:
        now = store.read("c1")
        assert now is not None
        store.apply("c1", now.revision, key, [Label("a", 4)])

    send(1, 0.0, "one")
    write("k1")
    send(2, 10.0, "two")
    write("k2")
    store.undo("c1", 1)
    assert speakers_of(store) == {"a": "SPEAKER_04"}
    store.undo("c1", 2)
    assert speakers_of(store) == {"a": "SPEAKER_00"}
    store.redo("c1", 2)
    assert speakers_of(store) == {"a": "SPEAKER_04"}, "the way back leads to what was there"
