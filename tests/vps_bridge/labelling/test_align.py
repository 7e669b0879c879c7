"""Aligning: the offset of each stretch of audio, and whether speech and transcript confirm it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from vps_bridge.labelling.align import AlignmentRules, Stretch, find_stretches, is_rate_suspect, verify_clock
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, place_chunks

RULES = AlignmentRules()
T0 = 1_700_000_000.0
EARNINGS = Path(__file__).parents[3].parent / "shared" / "transcripts" / "earnings21"


def chunk(number, captured_at_s=None, *, sequence="same", duration_s=10.0):
    return ChunkInfo(f"c{number}", number, number if sequence == "same" else sequence, captured_at_s, duration_s)


def stretches(chunks, started_at_s=T0):
    return find_stretches(chunks, place_chunks(chunks, AssemblyRules()), started_at_s)


def test_the_offset_is_captured_at_minus_started_at_for_every_stretch():
    found = stretches([chunk(0, T0 + 40), chunk(1, T0 + 50), chunk(2, T0 + 300)])
    assert [stretch.offset_s for stretch in found] == [40.0, 300.0]


@pytest.mark.parametrize("first", [0, 1])
def test_without_captured_at_the_first_stretch_begins_with_the_transcript(first):
    found = stretches([chunk(first), chunk(first + 1), chunk(first + 5)])
    assert [stretch.offset_s for stretch in found] == [0.0, None]


def test_without_captured_at_a_stretch_that_does_not_begin_the_conversation_has_no_clock():
    assert [stretch.offset_s for stretch in stretches([chunk(3), chunk(4)])] == [None]
    assert [stretch.offset_s for stretch in stretches([chunk(0, sequence=None), chunk(1, sequence=None)])] == [None]


def test_a_single_upload_begins_with_the_transcript():
    assert [stretch.offset_s for stretch in stretches([chunk(7, sequence=None, duration_s=600.0)])] == [0.0]


def test_captured_at_without_started_at_places_only_the_beginning():
    found = stretches([chunk(0, T0), chunk(1, T0 + 300)], started_at_s=None)
    assert [stretch.offset_s for stretch in found] == [0.0, None]


def test_one_chunk_with_a_time_is_enough_for_its_stretch():
    (found,) = stretches([chunk(0), chunk(1, T0 + 30), chunk(2)])
    assert found.offset_s == pytest.approx(20.0)


SPEECH = [(0.0, 4.0), (5.5, 9.0), (10.0, 12.0), (15.0, 22.0), (23.0, 31.0), (34.0, 40.0), (47.0, 55.0)]
STRETCH = Stretch(0, 60.0, 100.0, 0.0)


def moved(offset_s):
    return [(start_s + offset_s, end_s + offset_s) for start_s, end_s in SPEECH]


def test_an_offset_that_fits_the_speech_is_used():
    assert verify_clock(STRETCH, SPEECH, moved(100.0), RULES).offset_s == 100.0


@pytest.mark.parametrize("error_s", [-20.0, -5.0, 2.0, 10.0, 28.0])
def test_an_offset_that_a_shift_fits_clearly_better_is_not_used(error_s):
    clock = verify_clock(STRETCH, SPEECH, moved(100.0 + error_s), RULES)
    assert (clock.offset_s, clock.reason) == (None, "clock.unverified")


def test_jitter_of_half_a_second_is_used():
    assert verify_clock(STRETCH, SPEECH, moved(100.5), RULES).offset_s == 100.0


def test_speech_where_the_transcript_has_none_is_not_used():
    assert verify_clock(STRETCH, SPEECH, [(161.0, 189.0)], RULES).reason == "clock.unverified"


def test_time_stamps_that_stray_within_a_stretch_are_not_used():
    assert verify_clock(Stretch(0, 60.0, 100.0, 2.5), SPEECH, moved(100.0), RULES).reason == "clock.unverified"


def test_no_offset_is_unknown():
    assert verify_clock(Stretch(1, 60.0, None, 0.0), SPEECH, moved(0.0), RULES).reason == "clock.unknown"


def test_silence_and_an_empty_transcript_contradict_nothing():
    assert verify_clock(STRETCH, [], moved(100.0), RULES).offset_s == 100.0
    assert verify_clock(STRETCH, SPEECH, [], RULES).offset_s == 100.0


def test_one_block_over_everything_contradicts_nothing():
    assert verify_clock(STRETCH, SPEECH, [(60.0, 200.0)], RULES).offset_s == 100.0


@pytest.mark.parametrize("zero_length", [[(130.0, 130.0)], [(130.0, 110.0)]])
def test_segments_without_length_survive(zero_length):
    assert verify_clock(STRETCH, SPEECH, zero_length, RULES).offset_s == 100.0


def test_chunks_longer_than_their_time_steps_are_a_wrong_sample_rate():
    assert is_rate_suspect([chunk(n, T0 + 5.0 * n) for n in range(10)], RULES)
    assert not is_rate_suspect([chunk(n, T0 + 10.3 * n) for n in range(10)], RULES)


def test_real_pauses_are_no_wrong_sample_rate():
    chunks = [chunk(n, T0 + 10.0 * n + (600.0 if n > 4 else 0.0)) for n in range(10)]
    assert not is_rate_suspect(chunks, RULES)


def words(name):
    rows = [line.split() for line in (EARNINGS / f"{name}.rev_kaldi.ctm").read_text().splitlines()]
    return [(float(row[2]), float(row[2]) + float(row[3])) for row in rows if len(row) > 4]


def joined(spans, gap_s, longest_s):
    """Join words into segments of at most `longest_s`, over pauses shorter than `gap_s`."""
    listed = [list(spans[0])]
    for start_s, end_s in spans[1:]:
        if start_s - listed[-1][1] < gap_s and end_s - listed[-1][0] < longest_s:
            listed[-1][1] = end_s
        else:
            listed.append([start_s, end_s])
    return [(start_s, end_s) for start_s, end_s in listed]


@pytest.mark.shared
@pytest.mark.skipif(not EARNINGS.exists(), reason="the real transcripts (shared/transcripts) are not here")
@pytest.mark.parametrize("name", ["4366522", "4330115"])
def test_on_a_real_call_right_offsets_are_used_and_wrong_ones_are_not(name):
    """Two-minute stretches of an earnings call, words joined to segments, edges off by up to 0.2 s."""
    jitter = random.Random(5)
    spoken = words(name)
    segments = joined(spoken, 0.6, 15.0)
    used: dict[float, list[bool]] = {}
    for start_s in range(0, int(spoken[-1][1]) - 120, 60):
        speech = [
            (max(0.0, a - start_s) + jitter.uniform(-0.2, 0.2), min(120.0, b - start_s) + jitter.uniform(-0.2, 0.2))
            for a, b in joined(spoken, 0.25, 1e9)
            if a < start_s + 120 and b > start_s
        ]
        for error_s in (0.0, 2.0, -5.0, 20.0):
            clock = verify_clock(Stretch(0, 120.0, start_s + error_s, 0.0), speech, segments, RULES)
            used.setdefault(error_s, []).append(clock.reason is None)
    share = {error_s: sum(listed) / len(listed) for error_s, listed in used.items()}
    assert share.pop(0.0) >= 0.95
    assert max(share.values()) <= 0.05
