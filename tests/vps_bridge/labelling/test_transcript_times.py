"""Times that cannot be: each is named in the warnings with its numbers and what to do, and no label is taken away."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conversation import Word
from tests.vps_bridge.labelling.test_no_evidence import without_voices
from tests.vps_bridge.labelling.test_relabel import DIALOGUE, POLICY, T0, apply, evidence_of, transcript
from vps_bridge.labelling.evidence import build_audio_timeline
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.labelling.relabel import relabel
from vps_bridge.labelling.transcript_times import find_time_faults

HOUR_S, DAY_S = 3600.0, 86_400.0
BASE = evidence_of(DIALOGUE)
HEARD_BEFORE = relabel(BASE, POLICY).voices  # what was published before the transcript came
LABELS = st.sampled_from([None, "SPEAKER_00", "SPEAKER_01", "SPEAKER_7", "Alice"])


def assert_no_label_is_taken(evidence):
    """Relabel; return the warnings. A label may only become that of who truly speaks: one label, one person."""
    result = relabel(evidence, POLICY)
    before = {segment.id: segment.speaker for segment in evidence.segments}
    people: dict = {}
    for change in result.changed:
        assert change.after is not None
        people.setdefault(change.after, set()).add(DIALOGUE[int(change.segment_id[1:])][0])
    assert all(len(names) == 1 for names in people.values())
    untouched = {label.id for label in result.segments if label.speaker == before[label.id]}
    assert untouched | {change.segment_id for change in result.changed} == set(before)
    again = relabel(replace(evidence, segments=apply(evidence.segments, result), voices=result.voices), POLICY)
    assert again.changed == ()
    assert all(len(warning) <= 200 for warning in result.warnings)
    return result.warnings


def words_of(segment, wrong_s=0.0):
    count = 10
    step_s = (segment.end_s - segment.start_s) / count
    starts_s = [segment.start_s + wrong_s + n * step_s for n in range(count)]
    return tuple(Word(text="a", start_s=start_s, end_s=start_s + step_s) for start_s in starts_s)


def shifted(rows, shift_s):
    return tuple(replace(row, start_s=row.start_s + shift_s, end_s=row.end_s + shift_s) for row in rows)


@pytest.mark.parametrize("book", [VoiceBook(), HEARD_BEFORE], ids=["new", "voices known before"])
@pytest.mark.parametrize("speaker", ["SPEAKER_00", "SPEAKER_05"])
@pytest.mark.parametrize(
    ("wrong_s", "words"),
    [
        (HOUR_S, ("by 3,600 s", "whole hours look like a time zone", "UTC")),
        (-7 * HOUR_S, ("by 25,200 s", "whole hours look like a time zone")),
        (5.5 * HOUR_S, ("by 19,800 s", "half hours look like a time zone")),
        (2_000.0, ("by 2,000 s", "compare captured_at with started_at")),
        (3 * DAY_S, ("by 259,200 s", "compare the dates")),
        (-T0 + 100.0, ("by 1,699,999,900 s", "clock that was not set")),
        (400 * DAY_S, ("by 34,560,000 s", "clock that was not set")),
    ],
    ids=["hour", "zone west", "half hours", "no zone", "days", "1970", "years"],
)
def test_a_wrong_clock_takes_no_label_and_is_named_with_its_seconds(wrong_s, words, speaker, book):
    chunks = tuple(replace(chunk, captured_at_s=chunk.captured_at_s + wrong_s) for chunk in BASE.chunks)
    evidence = replace(BASE, chunks=chunks, segments=transcript(DIALOGUE, speaker), voices=book)
    (warning,) = [warning for warning in assert_no_label_is_taken(evidence) if warning.startswith("clock.no_overlap")]
    assert [word for word in words if word not in warning] == []


@pytest.mark.parametrize("wrong_s", [HOUR_S, -HOUR_S, 2 * DAY_S, -T0], ids=["later", "earlier", "days", "1970"])
@pytest.mark.parametrize("wrong", [range(40, 64), range(30)], ids=["last chunks", "first chunks"])
def test_where_only_some_chunks_have_a_wrong_clock_their_segments_keep_their_labels(wrong, wrong_s):
    chunks = tuple(
        replace(chunk, captured_at_s=chunk.captured_at_s + wrong_s) if index in wrong else chunk
        for index, chunk in enumerate(BASE.chunks)
    )
    result = relabel(replace(BASE, chunks=chunks, segments=transcript(DIALOGUE)), POLICY)
    (warning,) = [warning for warning in result.warnings if warning.startswith("clock.no_overlap")]
    assert "do not overlap by" in warning
    labels = {label.id: label.speaker for label in result.segments}
    of_wrong = [
        f"s{place:03d}"
        for place, (_, start_s, end_s) in enumerate(DIALOGUE)
        if start_s > wrong.start * 5 + 5 and end_s < wrong.stop * 5 - 5
    ]
    assert of_wrong
    assert [name for name in of_wrong if labels[name] is None] == []


def test_segments_beyond_the_audio_of_a_single_upload_are_left_alone():
    """No captured_at, no started_at: the transcript is of another recording, or of a later part of it."""
    (chunk,) = evidence_of(DIALOGUE[:1], 5.0).chunks
    spoken = [("A", 0.5, 4.5)]
    evidence = evidence_of(spoken, 5.0, segments=shifted(transcript(spoken), 500.0))
    evidence = replace(evidence, chunks=(replace(chunk, captured_at_s=None),), started_at_s=None)
    (warning,) = (words for words in assert_no_label_is_taken(evidence) if words.startswith("clock.unknown: "))
    assert "at no offset clearly enough; captured_at of the audio is missing" in warning


def test_milliseconds_are_named_with_both_ends():
    rows = transcript(DIALOGUE)
    segments = tuple(replace(row, start_s=row.start_s * 1000, end_s=row.end_s * 1000) for row in rows)
    warnings = assert_no_label_is_taken(replace(BASE, segments=segments, voices=HEARD_BEFORE))
    (warning,) = (warning for warning in warnings if warning.startswith("times."))
    for words in ("ends at 319,000 s", "the audio at 320 s", "milliseconds", "send seconds"):
        assert words in warning


def test_segments_that_end_before_they_start_are_counted_and_the_others_labelled():
    rows = transcript(DIALOGUE)
    backwards = tuple(
        replace(row, start_s=row.end_s, end_s=row.start_s) if place in (3, 9) else row for place, row in enumerate(rows)
    )
    result = relabel(replace(BASE, segments=backwards), POLICY)
    (warning,) = result.warnings
    assert "2 of 40 segments end before they start, first s003" in warning
    assert dict(result.left_alone) == {"s003": "times.impossible", "s009": "times.impossible"}
    assert [result.segments[place].speaker for place in (3, 9)] == ["SPEAKER_00"] * 2
    assert result.speakers == 3


def test_audio_that_was_placed_against_its_clock_is_named_too():
    """Where what is spoken shows the place, the labels are right; that the clocks are an hour apart is said."""
    chunks = tuple(replace(chunk, captured_at_s=chunk.captured_at_s + HOUR_S) for chunk in BASE.chunks)
    evidence = replace(BASE, chunks=chunks, segments=transcript(DIALOGUE))
    timeline = build_audio_timeline(evidence, POLICY.assembly)
    (warning,) = find_time_faults(evidence, timeline, [0.0]).warnings
    assert "do not overlap by 3,600 s: whole hours look like a time zone" in warning
    assert find_time_faults(replace(evidence, chunks=BASE.chunks), timeline, [0.0]).is_displaced is False


@pytest.mark.parametrize("delay_s", [0.0, 40.0], ids=["at once", "captured later"])
def test_right_times_give_no_warning(delay_s):
    chunks = tuple(replace(chunk, captured_at_s=chunk.captured_at_s + delay_s) for chunk in BASE.chunks)
    segments = shifted(transcript(DIALOGUE), delay_s)
    assert relabel(replace(BASE, chunks=chunks, segments=segments), POLICY).warnings == ()


def test_audio_whose_transcript_is_still_to_come_is_no_fault():
    """Live: a second stretch of audio is here, with speech in it, and its segments are not."""
    chunks = tuple(chunk for chunk in BASE.chunks if not 150 <= chunk.captured_at_s - T0 < 200)
    result = relabel(replace(BASE, chunks=chunks, segments=transcript(DIALOGUE)[:15]), POLICY)
    assert [warning for warning in result.warnings if "overlap" in warning] == []


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(LABELS, min_size=len(DIALOGUE), max_size=len(DIALOGUE)),
    hours=st.integers(-167, 166).filter(bool),
    firm=st.booleans(),
    wrong=st.sampled_from(["audio", "transcript"]),
    book=st.sampled_from([VoiceBook(), HEARD_BEFORE]),
    final=st.booleans(),
)
def test_without_evidence_no_label_is_ever_removed_and_something_is_said(labels, hours, firm, wrong, book, final):
    segments = tuple(
        replace(row, speaker=label, original_speaker=label)
        for row, label in zip(transcript(DIALOGUE), labels, strict=True)
    )
    chunks = BASE.chunks
    if wrong == "audio":
        chunks = tuple(replace(chunk, captured_at_s=chunk.captured_at_s + hours * HOUR_S) for chunk in chunks)
    else:
        segments = shifted(segments, hours * HOUR_S)
    evidence = replace(BASE, chunks=chunks, segments=segments, voices=book, is_final=final)
    assert assert_no_label_is_taken(evidence if firm else without_voices(evidence))


@pytest.mark.parametrize("wrong_s", [-500.0, 500.0, 90_000.0])
def test_words_outside_their_segments_are_named_with_both_times(wrong_s):
    segments = tuple(replace(segment, words=words_of(segment, wrong_s)) for segment in transcript(DIALOGUE))
    found = assert_no_label_is_taken(evidence_of(DIALOGUE, segments=segments))
    (warning,) = (words for words in found if words.startswith("times.words_outside: "))
    assert "of 40 of 40 segments, first s000" in warning
    assert f"{0.5 + wrong_s:,.2f} to" in warning


def far_words(segment):
    return words_of(segment, 90_000.0)


def far_words_before(segment):
    return words_of(segment, -600_000.0)


def last_word_never_ends(segment):
    *first, last = words_of(segment)
    return (*first, Word(text="a", start_s=last.start_s, end_s=90_000.0))


def one_word_is_as_long_as_the_audio(segment):
    return (*words_of(segment), Word(text="a", start_s=0.0, end_s=320.0))


def one_word_is_in_another_segment(segment):
    return (*words_of(segment), Word(text="a", start_s=0.0, end_s=0.3))


BAD_WORDS = [
    far_words,
    far_words_before,
    last_word_never_ends,
    one_word_is_as_long_as_the_audio,
    one_word_is_in_another_segment,
]


@pytest.mark.parametrize("others_have_words", [True, False])
@pytest.mark.parametrize("bad_words", BAD_WORDS)
def test_bad_words_of_one_segment_change_nobodys_label(bad_words, others_have_words):
    good = tuple(
        replace(row, words=words_of(row) if others_have_words else None, text="a " * 10) for row in transcript(DIALOGUE)
    )
    bad = replace(good[3], words=bad_words(good[3]))
    expected = relabel(replace(BASE, segments=good), POLICY)
    found = relabel(replace(BASE, segments=(*good[:3], bad, *good[4:])), POLICY)
    assert [label.speaker for label in found.segments] == [label.speaker for label in expected.segments]
    assert found.left_alone == ()
    (warning,) = found.warnings
    assert warning.startswith("times.words_outside: of 1 of 40 segments, first s003 (words ")


@pytest.mark.parametrize("around_s", [0.0, 30.0], ids=["as long as the transcript", "longer"])
@pytest.mark.parametrize("kind", ["one of them", "a summary beside them"])
def test_a_segment_around_all_others_changes_nobodys_label(around_s, kind):
    good = transcript(DIALOGUE)
    around = {"start_s": max(0.0, good[0].start_s - around_s), "end_s": good[-1].end_s + around_s}
    wide = replace(good[3], **around, id=good[3].id if kind == "one of them" else "s999")
    others = good if wide.id == "s999" else (*good[:3], *good[4:])
    expected = {label.id: label.speaker for label in relabel(replace(BASE, segments=others), POLICY).segments}
    found = relabel(replace(BASE, segments=(*others, wide)), POLICY)
    assert {label.id: label.speaker for label in found.segments if label.id != wide.id} == expected
    assert {segment_id for segment_id, _ in found.left_alone} <= {wide.id}


def test_a_segment_is_never_cut_at_words_that_are_elsewhere():
    """Of a block of two people's words half are a day later: no piece of it may end there."""
    rows = transcript(DIALOGUE)
    block = replace(rows[0], end_s=rows[1].end_s, words=(*words_of(rows[0]), *words_of(rows[1], 80_000.0)))
    (label, *others) = relabel(replace(BASE, segments=(block, *rows[2:])), POLICY).segments
    assert not label.pieces
    assert {other.speaker for other in others} == {"SPEAKER_00", "SPEAKER_01", "SPEAKER_02"}


def a_day_later(row):
    return replace(row, start_s=row.start_s + 90_000.0, end_s=row.end_s + 90_000.0)


def days_before(row):
    return replace(row, start_s=row.start_s - 500_000.0, end_s=row.end_s - 500_000.0)


def never_ends(row):
    return replace(row, end_s=90_000.0)


@pytest.mark.parametrize("places", [{3}, {0, 3, 9, 20}])
@pytest.mark.parametrize("wrong", [a_day_later, days_before, never_ends])
def test_segments_a_day_apart_keep_their_labels_and_all_others_get_theirs(wrong, places):
    rows = transcript(DIALOGUE, "SPEAKER_07")
    segments = tuple(wrong(row) if place in places else row for place, row in enumerate(rows))
    found = relabel(replace(BASE, segments=segments), POLICY)
    (warning,) = found.warnings
    assert warning.startswith(
        f"times.far_apart: {len(places)} of 40 segments lie a day or more from the others, first "
    )
    assert f"first {rows[min(places)].id} (" in warning
    assert dict(found.left_alone) == {rows[place].id: "times.impossible" for place in places}
    assert {found.segments[place].speaker for place in places} == {"SPEAKER_07"}
    said_by: dict = {}
    for place, label in enumerate(found.segments):
        if place not in places:
            said_by.setdefault(label.speaker, set()).add(DIALOGUE[place][0])
    assert sorted(map(sorted, said_by.values())) == [["A"], ["B"], ["C"]]


def test_where_no_audio_was_diarized_the_clock_says_so():
    evidence = replace(evidence_of(DIALOGUE, segments=transcript(DIALOGUE)), jobs=(), is_final=True)
    (warning,) = relabel(evidence, POLICY).warnings
    assert warning == "clock.unverified: no audio was diarized: its jobs failed, see failed_jobs, or were given up"
    assert relabel(replace(evidence, is_final=False), POLICY).warnings == (), "its jobs only wait"
    silent = tuple(replace(job, turns=(), exclusive_turns=(), speakers=()) for job in evidence_of(DIALOGUE).jobs)
    assert relabel(replace(evidence, jobs=silent), POLICY).warnings == (
        "clock.unverified: nobody was heard in the audio",
    )
