"""The audio clock: one clock for all jobs, and one job for every second of it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.turns import ChunkSpan, SpeakerTurn
from vps_bridge.labelling.audio_clock import (
    JobWindow,
    clip_turns,
    divide_between_jobs,
    job_windows,
    place_turns,
    stretch_origins,
)
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, place_chunks


def window(start_s, end_s, shift_s=0.0):
    return JobWindow(start_s, end_s, shift_s)


def test_what_a_job_decided_stands_up_to_its_last_second():
    given = divide_between_jobs({"j1": [window(0, 60)], "j2": [window(50, 110)]})
    assert given == {"j1": ((0, 59.0),), "j2": ((59.0, 110),)}


def test_a_late_job_gets_what_no_job_before_it_heard():
    given = divide_between_jobs({"j1": [window(0, 60)], "j2": [window(70, 130)], "late": [window(40, 90)]})
    assert given == {"j1": ((0, 59.0),), "late": ((59.0, 71.0),), "j2": ((71.0, 130),)}


def test_seconds_at_the_edge_of_every_job_go_to_the_job_that_hears_most_around_them():
    given = divide_between_jobs({"j1": [window(0, 60)], "j2": [window(59.2, 119.2)]})
    assert given == {"j1": ((0, pytest.approx(59.6)),), "j2": ((pytest.approx(59.6), 119.2),)}


def test_a_job_with_context_from_across_a_gap_gets_its_own_audio():
    given = divide_between_jobs({"j1": [window(0, 60)], "j2": [window(0, 50, 10), window(50, 55, 150)]})
    assert given["j2"][-1] == (200.0, 205.0)
    assert sum(end_s - start_s for spans in given.values() for start_s, end_s in spans) == pytest.approx(65.0)


def test_the_audio_clock_keeps_pauses_that_captured_at_measures():
    chunks = [ChunkInfo("a", 0, 0, 1000.0, 5.0), ChunkInfo("b", 1, 1, 1100.0, 5.0), ChunkInfo("c", 2, 9, None, 5.0)]
    placed = place_chunks(chunks, AssemblyRules())
    assert stretch_origins(chunks, placed) == (0.0, 100.0, 105.0)


def test_a_turn_from_one_stretch_into_the_next_becomes_two():
    chunks = [ChunkInfo("a", 0, 0, 1000.0, 5.0), ChunkInfo("b", 1, 1, 1100.0, 5.0)]
    placed = place_chunks(chunks, AssemblyRules())
    spans = [
        ChunkSpan(chunk_id="a", start_s=0, duration_s=5),
        ChunkSpan(chunk_id="b", start_s=5, duration_s=5),
        ChunkSpan(chunk_id="unknown", start_s=10, duration_s=5),
    ]
    windows = job_windows(spans, {place.chunk_id: place for place in placed}, stretch_origins(chunks, placed))
    turns = place_turns([SpeakerTurn(start_s=3, end_s=12, speaker="S")], windows)
    assert [(turn.start_s, turn.end_s) for turn in turns] == [(3, 5), (100, 105)]


def test_clipping_keeps_what_lies_inside():
    turns = place_turns([SpeakerTurn(start_s=0, end_s=10, speaker="S")], [window(0, 10)])
    assert [(turn.start_s, turn.end_s) for turn in clip_turns(turns, [(-5, 2), (4, 6), (9, 20)])] == [
        (0, 2),
        (4, 6),
        (9, 10),
    ]


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 90)), min_size=1, max_size=8))
def test_every_second_of_any_job_is_given_once_to_a_job_that_covers_it(drawn):
    windows = {f"j{n}": [window(start, start + length)] for n, (start, length) in enumerate(drawn)}
    given = divide_between_jobs(windows)
    spans = sorted(span for listed in given.values() for span in listed)
    for (_, end_s), (start_s, _) in pairwise(spans):
        assert start_s >= end_s - 1e-9
    for job, listed in given.items():
        for start_s, end_s in listed:
            assert windows[job][0].span[0] <= start_s
            assert end_s <= windows[job][0].span[1]
    covered = set()
    for start, length in drawn:
        covered |= set(range(start, start + length))
    assert sum(end_s - start_s for start_s, end_s in spans) == pytest.approx(len(covered))


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(3, 90)), min_size=2, max_size=8), st.data())
def test_later_jobs_take_no_second_that_a_job_heard_well_before_them(drawn, data):
    windows = {f"j{n}": [window(start, start + length)] for n, (start, length) in enumerate(drawn)}
    made = data.draw(st.integers(1, len(drawn) - 1))
    earlier = divide_between_jobs(dict(list(windows.items())[:made]))
    later = divide_between_jobs(windows)
    for job, spans in earlier.items():
        begin_s, end_s = windows[job][0].span
        moments = [moment_s / 2 + 0.25 for moment_s in range(2 * int(begin_s) + 2, 2 * int(end_s) - 2)]
        for moment_s in (moment_s for moment_s in moments if any(a < moment_s < b for a, b in spans)):
            assert any(a < moment_s < b for a, b in later[job])
