"""Segments in which the speaker changes are cut between words, where the backend sent the times of words."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.real_transcripts import CUTS, read_transcripts
from schemas.conversation import Word
from tests.vps_bridge.labelling.test_relabel import DIALOGUE, POLICY, evidence_of
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.cut import CuttingRules, cut_segments, cut_words
from vps_bridge.labelling.relabel import relabel
from vps_bridge.labelling.vote import AssignmentRules, TranscriptTurn, vote_segments

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
    end_s = 1.0 + word_s
    turns = [TranscriptTurn(0.0, 1.0, 0), TranscriptTurn(1.0, end_s, 1), TranscriptTurn(end_s, 3.0, 0)]
    words = words_at((0.0, 0.5), (0.5, 1.0), (1.0, end_s), (end_s, 2.3), (2.3, 2.9))
    assert len(cut_words(turns, words, RULES)) == pieces


def test_words_that_no_turn_is_near_are_nobodys():
    turns = [TranscriptTurn(0.0, 2.0, 0), TranscriptTurn(6.0, 8.0, -1)]
    pieces = cut_words(turns, even_words(0.0, 8.0), RULES)
    assert [piece.voice for piece in pieces] == [0, None]


def test_segments_without_word_times_of_one_voice_or_labelled_by_a_person_stay_whole():
    turns = [TranscriptTurn(0.0, 2.0, 0), TranscriptTurn(2.0, 4.0, 1)]
    words = even_words(0.0, 4.0)
    segments = [
        StoredSegment("cut", 0.0, 4.0, words=words),
        StoredSegment("no words", 0.0, 4.0),
        StoredSegment("one voice", 0.0, 1.6, words=even_words(0.0, 1.6)),
        StoredSegment("a person's", 0.0, 4.0, words=words, label_source="manual"),
    ]
    assert set(cut_segments(turns, segments, RULES)) == {"cut"}


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
        assert len(segment.pieces) == (len(block) if len(block) > 1 else 0)
        for piece, (name, start_s, end_s) in zip(segment.pieces, block, strict=False):
            assert abs(piece.start_s - start_s) < 0.5
            assert abs(piece.end_s - end_s) < 0.5
            names.setdefault(piece.speaker, set()).add(name)
    assert sorted(names.values()) == [{"A"}, {"B"}, {"C"}]


def test_pieces_are_written_once():
    evidence, _ = block_evidence()
    first = relabel(evidence, POLICY)
    pieces = {segment.id: segment for segment in first.segments}
    written = tuple(
        replace(segment, speaker=pieces[segment.id].speaker, pieces=pieces[segment.id].pieces)
        for segment in evidence.segments
    )
    second = relabel(replace(evidence, segments=written, voices=first.voices), POLICY)
    assert second.changed == ()
    assert second.write_key == first.write_key


def test_pieces_stay_when_the_clock_is_lost():
    evidence, _ = block_evidence()
    first = relabel(evidence, POLICY)
    pieces = {segment.id: segment.pieces for segment in first.segments}
    written = tuple(replace(segment, pieces=pieces[segment.id]) for segment in evidence.segments)
    without = replace(evidence, segments=written, voices=first.voices, chunks=(), jobs=())
    assert relabel(without, POLICY).changed == ()


@pytest.mark.shared
@pytest.mark.parametrize("cut", CUTS)
def test_words_of_real_calls_have_the_right_speaker(shared_dir, cut):
    """Earnings calls as three services heard them, with the true turns: 98 % of the words are right, however cut."""
    right = words = harmed = 0
    for transcript in read_transcripts(shared_dir):
        names = sorted({speaker for *_, speaker in transcript.turns})
        turns, until_s = [], 0.0
        for start_s, end_s, speaker in transcript.turns:
            if end_s > max(start_s, until_s):
                turns.append(TranscriptTurn(max(start_s, until_s), end_s, names.index(speaker)))
                until_s = end_s
        for spoken in CUTS[cut](transcript.words):
            timed = tuple(Word(text=word.text, start_s=word.start_s, end_s=word.end_s) for word in spoken)
            segment = StoredSegment("s", spoken[0].start_s, spoken[-1].end_s, words=timed)
            (vote,) = vote_segments(turns, [segment], AssignmentRules())
            for piece in cut_words(turns, timed, RULES):
                for word in spoken[piece.first_word : piece.last_word + 1]:
                    if word.speaker is not None:
                        words += 1
                        right += piece.voice == names.index(word.speaker)
                        harmed += vote.winner == names.index(word.speaker) != piece.voice
    assert words > 25_000
    assert right / words >= 0.98
    assert harmed / words <= 0.005
