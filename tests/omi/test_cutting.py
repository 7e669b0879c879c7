"""When audio was recorded, and which of it belongs to which conversation."""

import numpy as np
import pytest

from vps_bridge.omi.cutting import ConversationSpan, CutChunk, cut_chunks, taken_spans, window_of
from vps_bridge.omi.placement import LAG_S, AudioArrival, PlacedAudioBytes, place_arrivals
from vps_bridge.omi.silence import find_quiet_point

RATE = 8_000
SECOND = 2 * RATE
ALWAYS = (0.0, 1e12)
Arrivals = list[AudioArrival]


def arrive(*bursts: tuple[float, int], start: int = 0) -> Arrivals:
    """Bursts as (arrival, seconds), each in chunks of a second."""
    arrivals, position = [], start
    for at, seconds in bursts:
        for place in range(seconds):
            arrivals.append(AudioArrival(position, position + SECOND, RATE, at + 0.03 * place))
            position += SECOND
    return arrivals


def no_quiet(_start: int, _end: int) -> int | None:
    return None


def recorded(arrivals: Arrivals) -> list[float]:
    return [round(one.recorded_at, 1) for one in place_arrivals(arrivals, no_quiet)]


def test_bursts_without_silence_follow_each_other() -> None:
    placed = place_arrivals(arrive((104, 4), (108, 4), (112, 4)), no_quiet)
    assert [round(one.recorded_at + LAG_S, 1) for one in placed] == [100.0, 104.0, 108.0]
    assert len(cut_chunks(placed, ALWAYS, [])) == 1


def test_silence_that_was_left_out_stands_before_its_burst_or_where_it_is_quiet() -> None:
    arrivals = arrive((104, 4), (115, 4))
    assert recorded(arrivals) == [97.5, 108.5]
    quiet = 4 * SECOND + SECOND
    placed = place_arrivals(arrivals, lambda _start, _end: quiet)
    assert [(one.start, one.end, round(one.recorded_at, 1)) for one in placed] == [
        (0, 4 * SECOND, 97.5),
        (4 * SECOND, quiet, 101.5),
        (quiet, 8 * SECOND, 109.5),
    ]


def test_after_a_burst_that_was_not_full_silence_stands_before_the_next() -> None:
    placed = place_arrivals(arrive((102, 2), (115, 4)), lambda _start, _end: 3 * SECOND)
    assert [(one.start, round(one.recorded_at, 1)) for one in placed] == [(0, 97.5), (2 * SECOND, 108.5)]


def test_a_burst_that_was_delayed_is_put_right_by_the_next() -> None:
    assert recorded(arrive((104, 4), (140, 36), (144, 4))) == [97.5, 101.5, 137.5]


def test_a_stream_that_begins_anew_says_nothing_of_the_one_before() -> None:
    later = arrive((500, 4), start=10**9)
    assert recorded([*arrive((104, 4)), *later])[-1] == 493.5


def test_the_longest_quiet_part_of_a_burst_is_found() -> None:
    noise = np.random.default_rng(1)
    loud = noise.normal(0, 3_000, RATE).astype(np.int16)
    quiet = noise.normal(0, 10, RATE // 2).astype(np.int16)
    longer = noise.normal(0, 10, RATE).astype(np.int16)
    point = find_quiet_point(np.concatenate((loud, quiet, loud, longer, loud, quiet, loud)), RATE)
    assert point is not None
    assert point / RATE == pytest.approx(3.0, abs=0.05)
    assert find_quiet_point(loud[:10], RATE) is None


def placed(start: int, end: int, at: float, grid: int = 0) -> PlacedAudioBytes:
    return PlacedAudioBytes(start, end, RATE, at, grid)


def test_only_what_lies_in_the_window_is_taken_and_the_rest_stays_for_the_next() -> None:
    audio = [placed(0, 100 * SECOND, 1_000.0)]
    assert cut_chunks(audio, (1_010.0, 1_030.0), []) == [CutChunk(10 * SECOND, 30 * SECOND, RATE, 1_010.0)]
    assert cut_chunks(audio, (1_030.0, 2_000.0), [])[0].start == 30 * SECOND


def test_what_a_conversation_has_is_not_taken_again() -> None:
    audio = [placed(0, 100 * SECOND, 1_000.0)]
    first = cut_chunks(audio, (1_010.0, 1_030.0), [])
    taken = taken_spans([*(chunk.chunk_id for chunk in first), "another", "omi-x-1"])
    wider = cut_chunks(audio, (1_000.0, 1_050.0), taken)
    assert [(chunk.start // SECOND, chunk.end // SECOND) for chunk in wider] == [(0, 10), (30, 50)]
    assert [chunk.recorded_at for chunk in wider] == [1_000.0, 1_030.0]
    assert cut_chunks(audio, (1_000.0, 1_050.0), taken_spans(c.chunk_id for c in [*first, *wider])) == []


def test_a_half_sample_belongs_to_what_follows() -> None:
    audio = [placed(0, SECOND + 1, 1_000.0), placed(SECOND + 1, 2 * SECOND + 1, 1_010.0)]
    chunks = cut_chunks(audio, ALWAYS, [])
    assert [(chunk.start, chunk.end) for chunk in chunks] == [(0, SECOND), (SECOND, 2 * SECOND)]


def test_long_audio_becomes_chunks_of_a_minute() -> None:
    audio = [placed(place * SECOND, (place + 1) * SECOND, 1_000.0 + place) for place in range(150)]
    assert [(c.end - c.start) // SECOND for c in cut_chunks(audio, ALWAYS, [])] == [60, 60, 30]


def test_the_border_between_two_conversations_lies_between_them() -> None:
    spans = [
        ConversationSpan("a", 1_000, 1_100),
        ConversationSpan("b", 1_120, 1_200),
        ConversationSpan("c", 5_000, 5_100),
    ]
    assert window_of(spans[0], spans) == (985, 1_110)
    assert window_of(spans[1], spans) == (1_110, 1_215)
    merged = ConversationSpan("m", 1_000, 1_200)
    assert window_of(merged, spans) == (985, 1_215)


def test_a_chunk_that_was_tried_again_tears_no_burst_apart() -> None:
    torn = arrive((104, 4), (108, 1))
    torn += arrive((109, 3), start=5 * SECOND)
    torn += arrive((120, 4), start=8 * SECOND)
    assert recorded(torn) == [97.5, 101.5, 113.5]


def test_after_a_buffer_whose_rest_was_lost_within_a_sample_the_next_begins_with_a_whole_one() -> None:
    lost = [AudioArrival(0, SECOND + 1, RATE, 104.0)]  # of four seconds
    next_start = SECOND + 1
    chunks = cut_chunks(place_arrivals([*lost, *arrive((108, 4), (112, 4), start=next_start)], no_quiet), ALWAYS, [])
    assert [(chunk.start, chunk.end) for chunk in chunks] == [
        (0, SECOND),
        (next_start, next_start + 8 * SECOND),
    ]
