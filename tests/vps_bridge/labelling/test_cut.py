"""Segments in which the speaker changes are cut between words, where the backend sent the times of words."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bench_words import WordCount, count_words
from benchmarks.real_transcripts import CUTS, read_transcripts
from schemas.conversation import Word
from tests.vps_bridge.labelling.test_relabel import DIALOGUE, POLICY, evidence_of
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.cut import CuttingRules, cut_segments, cut_words
from vps_bridge.labelling.pieces import settle_votes
from vps_bridge.labelling.relabel import relabel
from vps_bridge.labelling.vote import AssignmentRules, TranscriptTurn, VoteOutcome, vote_segments

RULES = CuttingRules()


def words_at(*times):
    return tuple(Word(text=f"w{n}", start_s=start_s, end_s=end_s) for n, (start_s, end_s) in enumerate(times))


def even_words(start_s, end_s, word_s=0.4):
    """Words that follow each other without pauses."""
    count = int((end_s - start_s) / word_s)
    return words_at(*((start_s + n * word_s, start_s + (n + 1) * word_s) for n in range(count)))


def said(pieces):
    return [(piece.first_word, piece.last_word, piece.voice) for piece in pieces]


def test_words_are_cut_where_the_speaker_changes():
    turns = [TranscriptTurn(0.0, 2.0, 0), TranscriptTurn(2.0, 4.0, 1)]
    assert said(cut_words(turns, even_words(0.0, 4.0), RULES)) == [(0, 4, 0), (5, 9, 1)]


def test_one_short_word_is_no_piece_and_joins_its_neighbour_beyond_the_shorter_gap():
    turns = [TranscriptTurn(0.0, 1.0, 0), TranscriptTurn(1.0, 1.4, 1), TranscriptTurn(1.6, 3.0, 2)]
    words = words_at((0.0, 0.5), (0.5, 0.9), (1.1, 1.4), (1.45, 2.0), (2.0, 2.9))
    assert said(cut_words(turns, words, RULES)) == [(0, 1, 0), (2, 4, 2)]


@pytest.mark.parametrize(("word_s", "pieces"), [(0.5, 1), (0.7, 3)])
def test_a_single_word_is_a_piece_where_it_lasts(word_s, pieces):
    end_s = 1.2 + word_s
    turns = [TranscriptTurn(0.0, 1.0, 0), TranscriptTurn(1.2, end_s, 1), TranscriptTurn(end_s + 0.2, 3.2, 0)]
    words = words_at((0.0, 0.5), (0.5, 1.0), (1.2, end_s), (end_s + 0.2, 2.6), (2.6, 3.2))
    assert len(cut_words(turns, words, RULES)) == pieces


@pytest.mark.parametrize(("pause_s", "pieces"), [(0.0, 1), (0.2, 3)])
def test_a_short_interjection_is_believed_between_pauses_and_is_an_error_of_the_diarizer_without(pause_s, pieces):
    turns = [TranscriptTurn(0.0, 4.0, 0), TranscriptTurn(4.0, 6.0 + pause_s, 1), TranscriptTurn(6.0 + pause_s, 12.0, 0)]
    spoken = [(0.0, 4.0), (4.0 + pause_s, 6.0 + pause_s), (6.0 + 2 * pause_s, 10.0)]
    words = words_at(*((word.start_s, word.end_s) for span in spoken for word in even_words(*span)))
    assert len(cut_words(turns, words, RULES)) == pieces


def test_words_that_no_turn_is_near_are_nobodys():
    turns = [TranscriptTurn(0.0, 2.0, 0), TranscriptTurn(6.0, 8.0, -1)]
    pieces = cut_words(turns, even_words(0.0, 8.0), RULES)
    assert [piece.voice for piece in pieces] == [0, None]


@pytest.mark.parametrize(("pause_s", "pieces"), [(0.0, 1), (0.2, 2)])
def test_a_short_edge_is_believed_behind_a_pause(pause_s, pieces):
    turns = [TranscriptTurn(0.0, 2.0, 1), TranscriptTurn(2.0 + pause_s, 12.0, 0)]
    words = words_at(
        *((word.start_s, word.end_s) for word in (*even_words(0.0, 2.0), *even_words(2.0 + pause_s, 10.0)))
    )
    assert len(cut_words(turns, words, RULES)) == pieces


def test_of_two_equally_long_halves_neither_is_doubted():
    turns = [TranscriptTurn(0.0, 2.0, 0), TranscriptTurn(2.0, 4.0, 1)]
    assert len(cut_words(turns, even_words(0.0, 4.0), RULES)) == 2


def test_a_segment_of_two_speakers_is_clear_where_one_of_them_said_all_of_its_words():
    turns = [TranscriptTurn(0.0, 4.0, 0), TranscriptTurn(4.0, 5.5, 1), TranscriptTurn(5.5, 8.0, 0)]
    words = words_at(*((word.start_s, word.end_s) for word in (*even_words(0.0, 4.0), *even_words(5.5, 8.0))))
    segment = StoredSegment("s", 0.0, 8.0, words=words)
    rules = AssignmentRules(runner_up_share=0.15)
    votes = vote_segments(turns, [segment], rules)
    assert [vote.outcome for vote in votes] == [VoteOutcome.TWO_SPEAKERS]
    (settled,) = settle_votes(votes, cut_segments(turns, [segment], RULES))
    assert (settled.outcome, settled.winner) == (VoteOutcome.CLEAR, 0)


OF_THE_LINE = ((0.0, 8.0),) * 8
STARTS_ONLY = tuple((float(second), 8.0) for second in range(8))
OF_THE_PHRASE = (*((0.0, 7.0),) * 6, *((7.0, 8.0),) * 2)


@pytest.mark.parametrize(
    "times",
    [OF_THE_LINE, STARTS_ONLY, OF_THE_PHRASE],
    ids=["all have the times of the line", "all last until the line ends", "all have the times of their phrase"],
)
def test_words_in_which_two_people_speak_are_nobodys_and_make_no_segment_of_two_speakers_clear(times):
    turns = [TranscriptTurn(0.0, 3.7, 0), TranscriptTurn(3.9, 8.0, 1)]
    segment = StoredSegment("s", 0.0, 8.0, words=words_at(*times))
    cut = cut_segments(turns, [segment], RULES)
    assert cut["s"][0].voice is None
    (settled,) = settle_votes(vote_segments(turns, [segment], AssignmentRules()), cut)
    assert settled.outcome is VoteOutcome.TWO_SPEAKERS


def test_short_turns_within_a_word_count_together():
    turns = [TranscriptTurn(float(second), second + 0.9, second % 2) for second in range(9)]
    (piece,) = cut_words(turns, words_at(*((0.0, 9.0),) * 4), RULES)
    assert piece.voice is None


def test_segments_without_word_times_of_one_voice_or_labelled_by_a_person_stay_whole():
    turns = [TranscriptTurn(0.0, 2.0, 0), TranscriptTurn(2.0, 4.0, 1)]
    words = even_words(0.0, 4.0)
    segments = [
        StoredSegment("cut", 0.0, 4.0, words=words),
        StoredSegment("no words", 0.0, 4.0),
        StoredSegment("one voice", 0.0, 1.6, words=even_words(0.0, 1.6)),
        StoredSegment("a person's", 0.0, 4.0, words=words, label_source="manual"),
    ]
    found = cut_segments(turns, segments, RULES)
    assert {name: len(pieces) for name, pieces in found.items()} == {"cut": 2, "one voice": 1}


@given(st.data())
def test_pieces_are_all_the_words_in_order(data):
    lengths = data.draw(st.lists(st.floats(0.05, 1.5), min_size=1, max_size=30))
    starts = [sum(lengths[:n]) for n in range(len(lengths) + 1)]
    words = words_at(*itertools.pairwise(starts))
    cuts = sorted(data.draw(st.lists(st.floats(0.0, starts[-1]), max_size=12)))
    turns = [
        TranscriptTurn(a, b, data.draw(st.integers(-1, 3)))
        for a, b in itertools.pairwise(cuts)
        if b > a and data.draw(st.booleans())
    ]
    pieces = cut_words(turns, words, RULES)
    assert [place for piece in pieces for place in range(piece.first_word, piece.last_word + 1)] == [*range(len(words))]
    for piece, other in itertools.pairwise(pieces):
        assert piece.voice != other.voice
    if len(pieces) > 1:
        assert all(p.last_word > p.first_word or p.end_s - p.start_s >= RULES.min_piece_s for p in pieces)


def block_evidence():
    """The dialogue as one block of three turns after another, with word times."""
    blocks = [DIALOGUE[n : n + 3] for n in range(0, len(DIALOGUE), 3)]
    segments = tuple(
        StoredSegment(
            f"b{n:02d}",
            block[0][1],
            block[-1][2],
            speaker="SPEAKER_00",
            original_speaker="SPEAKER_00",
            words=tuple(word for _, start_s, end_s in block for word in even_words(start_s, end_s)),
        )
        for n, block in enumerate(blocks)
    )
    return evidence_of(DIALOGUE, segments=segments), blocks


def test_a_merged_block_tells_who_said_which_words():
    evidence, blocks = block_evidence()
    result = relabel(evidence, POLICY)
    names: dict = {}
    for segment, block in zip(result.segments, blocks, strict=True):
        assert len(segment.pieces or ()) == (len(block) if len(block) > 1 else 0)
        for piece, (name, start_s, end_s) in zip(segment.pieces or (), block, strict=False):
            assert abs(piece.start_s - start_s) < 0.5
            assert abs(piece.end_s - end_s) < 0.5
            names.setdefault(piece.speaker, set()).add(name)
    assert sorted(names.values(), key=sorted) == [{"A"}, {"B"}, {"C"}]
    reasons = {reason for _, reason in result.left_alone}
    assert reasons == {"two_speakers", "label.stale"}, "the label of the whole is left alone"


def test_pieces_are_written_once():
    evidence, _ = block_evidence()
    first = relabel(evidence, POLICY)
    pieces = {segment.id: segment for segment in first.segments}
    written = tuple(
        replace(segment, speaker=pieces[segment.id].speaker, pieces=pieces[segment.id].pieces or ())
        for segment in evidence.segments
    )
    second = relabel(replace(evidence, segments=written, voices=first.voices), POLICY)
    assert second.changed == ()
    assert second.write_key == first.write_key


def test_pieces_stay_when_the_clock_is_lost():
    evidence, _ = block_evidence()
    first = relabel(evidence, POLICY)
    pieces = {segment.id: segment.pieces or () for segment in first.segments}
    written = tuple(replace(segment, pieces=pieces[segment.id]) for segment in evidence.segments)
    without = replace(evidence, segments=written, voices=first.voices, chunks=(), jobs=())
    assert relabel(without, POLICY).changed == ()


TWO_TURNS = [TranscriptTurn(0.0, 4.0, 0), TranscriptTurn(4.5, 10.0, 1)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("How are you today? I am fine, thank you very much.", [(0, 3, 0), (4, 10, 1)]),
        ("How are you today I am fine thank you very much", []),
        ("No. How are you today then, I am fine thank you very much", []),
    ],
    ids=["a sentence ends at the change", "no sentence ends", "one ends elsewhere"],
)
def test_without_word_times_a_change_of_speaker_must_meet_the_end_of_a_sentence(text, pieces):
    segment = StoredSegment("s", 0.0, 10.0, text=text)
    rules = replace(RULES, estimate=replace(RULES.estimate, max_error_s=1.5))
    assert said(cut_segments(TWO_TURNS, [segment], rules).get("s", ())) == pieces


def test_a_policy_that_forbids_estimates_cuts_only_at_word_times():
    segment = StoredSegment("s", 0.0, 10.0, text="How are you today? I am fine, thank you very much.")
    rules = replace(RULES, estimate=replace(RULES.estimate, max_error_s=0.0))
    assert cut_segments(TWO_TURNS, [segment], rules) == {}


def test_a_yes_in_between_is_not_looked_for_in_the_text():
    turns = [TranscriptTurn(0.0, 4.0, 0), TranscriptTurn(4.0, 4.5, 1), TranscriptTurn(4.5, 10.0, 0)]
    segment = StoredSegment("s", 0.0, 10.0, text="How are you today? Yes. I am fine, thank you very much.")
    assert cut_segments(turns, [segment], RULES) == {}


@given(st.data())
def test_estimated_pieces_are_all_the_words_in_order(data):
    words = data.draw(
        st.lists(st.sampled_from(["a", "word", "ends.", "here?", "unreasonably"]), min_size=1, max_size=40)
    )
    cuts = sorted(data.draw(st.lists(st.floats(-5.0, 35.0), max_size=12)))
    turns = [TranscriptTurn(a, b, data.draw(st.integers(-1, 2))) for a, b in itertools.pairwise(cuts) if b > a]
    segment = StoredSegment("s", 0.0, 30.0, text=" ".join(words))
    pieces = cut_segments(turns, [segment], RULES).get("s", ())
    if pieces:
        places = [place for piece in pieces for place in range(piece.first_word, piece.last_word + 1)]
        assert places == [*range(len(words))]
        assert all(a.voice != b.voice for a, b in itertools.pairwise(pieces))


@pytest.mark.shared
@pytest.mark.parametrize("confused", [0.0, 0.05], ids=["true turns", "5 % of the speech confused"])
@pytest.mark.parametrize("has_times", [True, False], ids=["word times", "estimated"])
@pytest.mark.parametrize("cut", CUTS)
def test_words_of_real_calls_have_the_right_speaker(shared_dir, cut, has_times, confused):
    """Earnings calls as three services heard them, however the transcript is cut."""
    transcripts = read_transcripts(shared_dir)
    count = sum((count_words(each, cut, confused, has_times) for each in transcripts), WordCount())
    assert count.words > 25_000
    assert count.cut / count.words >= (0.98 if has_times else 0.97 if not confused else 0.94)
    assert count.harmed / count.words <= (0.005 if not confused else 0.012)
