"""Voting: which voice a segment gets, and which segments are better left alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vps_bridge.conversations.store import StoredSegment
from vps_bridge.conversations.transcripts import read_transcript
from vps_bridge.labelling.vote import AssignmentRules, TranscriptTurn, VoteOutcome, vote_segments

RULES = AssignmentRules()


def vote(turns, start_s, end_s, audio=None, **fields):
    (result,) = vote_segments(
        [TranscriptTurn(*turn) for turn in turns], [StoredSegment("s", start_s, end_s, **fields)], RULES, audio=audio
    )
    return result


def test_the_voice_with_most_speech_wins():
    result = vote([(0, 4, 0), (4, 4.8, 1), (4.8, 9, 0)], 0, 9)
    assert (result.outcome, result.winner, result.runner_up) == (VoteOutcome.CLEAR, 0, 1)
    assert result.coverage == pytest.approx(8.2 / 9)


def test_pauses_inside_a_segment_do_not_count_against_the_speaker():
    assert vote([(0, 4, 0), (12, 18, 0)], 0, 20).outcome is VoteOutcome.CLEAR


def test_the_last_syllable_of_a_neighbour_is_no_evidence_for_a_silent_segment():
    assert vote([(-5, 0.4, 0)], 0, 10).outcome is VoteOutcome.LOW_COVERAGE


def test_a_quarter_of_a_second_is_the_least_evidence():
    assert vote([(0, 0.2, 0)], 0, 0.2).outcome is VoteOutcome.LOW_COVERAGE
    assert vote([(0, 0.3, 0)], 0, 0.3).outcome is VoteOutcome.CLEAR


@pytest.mark.parametrize("moment_s", [0.0, 0.01, 2.0, 3.99, 4.0, 5.0, 8.99])
def test_a_segment_without_length_inside_a_turn_has_its_speaker(moment_s):
    turns, audio = [(0, 4, 0), (4, 9, 1)], [(0.0, 9.0)]
    result = vote(turns, moment_s, moment_s, audio=audio)
    assert (result.outcome, result.winner) == (VoteOutcome.CLEAR, int(moment_s >= 4))
    assert result.coverage == 1.0


def test_a_segment_shorter_than_a_word_has_the_speaker_of_the_turn_around_it():
    assert vote([(0, 4, 0)], 2.0, 2.1, audio=[(0.0, 9.0)]).outcome is VoteOutcome.CLEAR


@pytest.mark.parametrize("moment_s", [4.0, 4.5, 9.1, -1.0])
def test_a_segment_without_length_outside_every_turn_has_no_speaker(moment_s):
    outcome = vote([(0, 4, 0), (5, 9, 1)], moment_s, moment_s, audio=[(0.0, 9.0)]).outcome
    assert outcome in (VoteOutcome.LOW_COVERAGE, VoteOutcome.NO_AUDIO)


def test_two_speakers_are_left_alone():
    assert vote([(0, 6, 0), (6, 10, 1)], 0, 10).outcome is VoteOutcome.TWO_SPEAKERS


@pytest.mark.parametrize(("second_s", "outcome"), [(0.9, VoteOutcome.CLEAR), (1.1, VoteOutcome.TWO_SPEAKERS)])
def test_a_second_speaker_counts_from_one_second(second_s, outcome):
    assert vote([(0, 3, 0), (3, 3 + second_s, 1)], 0, 3 + second_s).outcome is outcome


def test_a_second_speaker_below_a_fifth_does_not_count():
    assert vote([(0, 18, 0), (18, 20, 1)], 0, 20).outcome is VoteOutcome.CLEAR


def test_speech_of_a_speaker_in_no_voice_never_wins_but_counts_as_speech():
    assert vote([(0, 5, -1)], 0, 5).outcome is VoteOutcome.NO_VOICE
    assert vote([(0, 0.9, 0), (0.9, 1.85, -1)], 0, 1.85).outcome is VoteOutcome.NO_VOICE
    assert vote([(0, 0.2, -1)], 0, 5).outcome is VoteOutcome.LOW_COVERAGE


def test_outside_the_audio_there_is_no_evidence():
    assert vote([(0, 5, 0)], 20, 25, audio=[(0.0, 10.0)]).outcome is VoteOutcome.NO_AUDIO
    assert vote([(0, 5, 0)], 6, 9, audio=[(0.0, 10.0)]).outcome is VoteOutcome.LOW_COVERAGE


def test_a_segment_that_a_person_labelled_is_human_whoever_speaks():
    assert vote([(0, 5, 0)], 0, 5, label_source="manual").outcome is VoteOutcome.HUMAN
    assert vote([(0, 5, 0)], 0, 5, is_user=True).outcome is VoteOutcome.HUMAN
    assert vote([(0, 5, 0)], 0, 5, person_id="p", label_source="auto").outcome is VoteOutcome.CLEAR


spans = st.lists(st.tuples(st.floats(-20, 120), st.floats(0, 30), st.integers(-2, 3)), max_size=20)


@given(turns=spans, segments=spans)
def test_any_turns_and_segments_survive_in_any_order(turns, segments):
    listed = [TranscriptTurn(start, start + length, voice) for start, length, voice in turns]
    rows = [
        StoredSegment(f"s{n}", start, start + length * (n % 3 - 1)) for n, (start, length, _) in enumerate(segments)
    ]
    votes = vote_segments(listed, rows, RULES)
    assert [result.segment_id for result in votes] == [row.id for row in rows]
    assert all(0 <= result.coverage <= 1 for result in votes)
    reverse = vote_segments(listed[::-1], rows[::-1], RULES)[::-1]
    assert [(a.outcome, a.winner) for a in votes] == [(b.outcome, b.winner) for b in reverse]


def sample(name):
    found = find_spec("pyannote")
    paths = (
        [Path(place) / "audio" / "sample" / name for place in (found.submodule_search_locations or [])] if found else []
    )
    existing = [path for path in paths if path.exists()]
    if not existing:
        pytest.skip(f"pyannote.audio, which ships {name}, is not installed here")
    return existing[0]


def exclusive(path):
    """Return the reference as exclusive turns: where two speak, the one who began first gets the time."""
    rows = sorted(
        (float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in map(str.split, path.read_text().splitlines())
    )
    names = sorted({name for *_, name in rows})
    turns, free_from_s = [], 0.0
    for start_s, end_s, name in rows:
        if end_s > max(start_s, free_from_s):
            turns.append(TranscriptTurn(max(start_s, free_from_s), end_s, names.index(name)))
            free_from_s = end_s
    return turns


def test_all_thirteen_lines_of_the_real_sample_get_their_speaker():
    turns = exclusive(sample("sample.rttm"))
    lines = read_transcript(sample("sample.stm"), "sample")
    rows = [StoredSegment(line.id, line.start_s, line.end_s) for line in lines]
    votes = vote_segments(turns, rows, RULES)
    speaker_of = {"Diane": 0, "Sheila": 1}
    assert [(result.outcome, result.winner) for result in votes] == [
        (VoteOutcome.CLEAR, speaker_of[str(line.person_id)]) for line in lines
    ]


def test_blocks_of_the_real_sample_that_hold_both_speakers_are_left_alone():
    turns = exclusive(sample("sample.rttm"))
    lines = read_transcript(sample("sample.stm"), "sample")
    blocks = [lines[0:5], lines[5:9], lines[9:13], lines]
    rows = [StoredSegment(f"b{n}", block[0].start_s, block[-1].end_s) for n, block in enumerate(blocks)]
    assert {result.outcome for result in vote_segments(turns, rows, RULES)} == {VoteOutcome.TWO_SPEAKERS}
