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
    def words_of(segment):
        count = 10
        step_s = (segment.end_s - segment.start_s) / count
        starts_s = [segment.start_s + wrong_s + n * step_s for n in range(count)]
        return tuple(Word(text="a", start_s=start_s, end_s=start_s + step_s) for start_s in starts_s)

    segments = tuple(replace(segment, words=words_of(segment)) for segment in transcript(DIALOGUE))
    found = assert_no_label_is_taken(evidence_of(DIALOGUE, segments=segments))
    (warning,) = (words for words in found if words.startswith("times.words_outside: "))
    assert "of 40 of 40 segments, first s000" in warning
    assert f"{0.5 + wrong_s:,.2f} to" in warning


def test_where_no_audio_was_diarized_the_clock_says_so():
    evidence = replace(evidence_of(DIALOGUE, segments=transcript(DIALOGUE)), jobs=(), is_final=True)
    assert relabel(evidence, POLICY).warnings == ("clock.unverified: no audio was diarized, see failed_jobs",)
    silent = tuple(replace(job, turns=(), exclusive_turns=(), speakers=()) for job in evidence_of(DIALOGUE).jobs)
    assert relabel(replace(evidence, jobs=silent), POLICY).warnings == (
        "clock.unverified: nobody was heard in the audio",
    )
