"""Chunks into jobs: every rule of the design by name, and what must hold for any chunks at all."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.agent import MAX_JOB_CHUNKS
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, place_chunks, plan_jobs

RULES = AssemblyRules()
T0 = 1_700_000_000.0


def stream(count, duration_s=5.0, *, first=0, captured=True, covered=False, start_s=T0):
    return [
        ChunkInfo(
            f"c{n:04d}",
            arrival=n,
            sequence=n,
            captured_at_s=start_s + (n - first) * duration_s if captured else None,
            duration_s=duration_s,
            covered=covered,
        )
        for n in range(first, first + count)
    ]


def plan(chunks, *, closing=False, idle_s=0.0):
    return plan_jobs(chunks, closing=closing, idle_s=idle_s, rules=RULES)


def cover(chunks, plans):
    fresh = {chunk_id for job in plans for chunk_id in job.fresh}
    return [ChunkInfo(**{**chunk.__dict__, "covered": chunk.covered or chunk.chunk_id in fresh}) for chunk in chunks]


def seconds(chunks, ids):
    known = {chunk.chunk_id: chunk.duration_s or 0.0 for chunk in chunks}
    return sum(known[chunk_id] for chunk_id in ids)


def ids(job):
    return [chunk.chunk_id for chunk in job.chunks]


def test_audio_waits_until_a_job_and_a_tail_are_there():
    assert plan(stream(14)) == ()
    (job,) = plan(stream(15))
    assert seconds(stream(15), job.fresh) == 60.0


def test_the_next_job_begins_with_the_last_ten_seconds_of_the_one_before():
    chunks = stream(15)
    chunks = cover(chunks, plan(chunks)) + stream(12, first=15, start_s=T0 + 75)
    (job,) = plan(chunks)
    assert ids(job)[:2] == ["c0010", "c0011"]
    assert job.fresh[0] == "c0012"
    assert seconds(chunks, job.fresh) == 60.0


def test_a_pause_of_twenty_seconds_closes_what_waits():
    chunks = stream(6)
    assert plan(chunks, idle_s=19.9) == ()
    (job,) = plan(chunks, idle_s=20.0)
    assert len(job.fresh) == 6


def test_completed_closes_what_waits():
    (job,) = plan(stream(3), closing=True)
    assert len(job.fresh) == 3


def test_a_gap_of_more_than_two_seconds_closes_at_once():
    chunks = stream(6) + stream(2, first=6, start_s=T0 + 33.0)
    (job,) = plan(chunks)
    assert job.fresh == tuple(f"c{n:04d}" for n in range(6))


def test_a_gap_below_two_seconds_is_kept_as_a_hole_in_the_job():
    chunks = stream(6) + stream(6, first=6, start_s=T0 + 31.5)
    (job,) = plan(chunks, closing=True)
    assert [chunk.start_s for chunk in job.chunks] == [0.0, *[None] * 5, 31.5, *[None] * 5]


def test_jitter_of_time_stamps_is_no_hole():
    chunks = stream(6) + stream(6, first=6, start_s=T0 + 30.4)
    (job,) = plan(chunks, closing=True)
    assert all(chunk.start_s is None for chunk in job.chunks[1:])


def test_slow_drift_of_time_stamps_does_not_part_a_stretch():
    chunks = [ChunkInfo(f"c{n}", n, n, T0 + n * 5.03, 5.0) for n in range(200)]
    placed = place_chunks(chunks, RULES)
    assert {place.stretch for place in placed} == {0}
    assert abs(placed[-1].start_s - 199 * 5.03) <= 0.5


def test_missing_sequence_numbers_part_stretches_where_no_time_measures_the_hole():
    chunks = [chunk for chunk in stream(10, captured=False) if chunk.sequence != 4]
    assert [place.stretch for place in place_chunks(chunks, RULES)] == [0] * 4 + [1] * 5


def test_a_chunk_that_may_be_offered_again_is_waited_for():
    chunks = [chunk for chunk in stream(10, captured=False) if chunk.sequence != 4]
    assert plan(chunks) == ()
    assert len(plan(chunks, idle_s=20.0)) == 2
    much_behind = [chunk for chunk in stream(30, captured=False) if chunk.sequence != 4]
    assert plan(much_behind)[0].fresh == ("c0000", "c0001", "c0002", "c0003")


def test_a_tail_under_fifteen_seconds_reaches_back_to_a_minute():
    chunks = cover(stream(24), plan(stream(24), closing=True)) + stream(2, first=24, start_s=T0 + 120)
    (job,) = plan(chunks, closing=True)
    assert job.fresh == ("c0024", "c0025")
    assert seconds(chunks, ids(job)) == 60.0
    assert ids(job) == [f"c{n:04d}" for n in range(14, 26)]


def test_a_short_stretch_takes_context_across_the_gap():
    chunks = stream(20) + stream(1, first=20, start_s=T0 + 200)
    jobs = plan(chunks, closing=True)
    (short,) = [job for job in jobs if job.fresh == ("c0020",)]
    assert seconds(chunks, ids(short)) >= 60.0


def test_a_short_beginning_takes_context_from_what_follows():
    chunks = stream(1) + stream(20, first=1, start_s=T0 + 60)
    jobs = plan(chunks, closing=True)
    (short,) = [job for job in jobs if job.fresh == ("c0000",)]
    assert seconds(chunks, ids(short)) >= 60.0
    assert ids(short)[0] == "c0000"


def test_a_late_chunk_gets_a_job_with_its_neighbours():
    chunks = stream(40, covered=True)
    chunks[20] = ChunkInfo("c0020", 99, 20, chunks[20].captured_at_s, 5.0)
    (job,) = plan(chunks)
    assert job.fresh == ("c0020",)
    assert seconds(chunks, ids(job)) >= 60.0
    assert ids(job) == sorted(ids(job))
    assert "c0021" in ids(job)


def test_a_long_upload_is_a_job_of_its_own():
    chunks = [*stream(3), ChunkInfo("long", 3, 3, T0 + 15, 1800.0)]
    jobs = plan(chunks, closing=True)
    assert [ids(job) for job in jobs if "long" in job.fresh] == [["long"]]
    assert all("long" not in ids(job) for job in jobs if "long" not in job.fresh)


@pytest.mark.parametrize("estimate_s", [1.3, 3.0, 5.0, 20.0, 110.0])
@pytest.mark.parametrize("sequenced", [True, False])
def test_chunks_of_estimated_length_give_the_jobs_of_measured_ones(estimate_s, sequenced):
    measured = [replace(chunk, sequence=chunk.sequence if sequenced else None) for chunk in stream(60)]
    last = 59  # nothing bounds the last one
    estimated = [
        replace(chunk, duration_s=5.0 if n == last else estimate_s, is_estimated=True)
        for n, chunk in enumerate(measured)
    ]
    assert plan(estimated, closing=True) == plan(measured, closing=True)


def test_chunks_of_estimated_length_without_times_follow_each_other():
    chunks = [replace(chunk, duration_s=7.0, is_estimated=True) for chunk in stream(30, captured=False)]
    jobs = plan(chunks, closing=True)
    assert [chunk_id for job in jobs for chunk_id in job.fresh] == [chunk.chunk_id for chunk in chunks]
    assert all(chunk.start_s is None for job in jobs for chunk in job.chunks[1:])
    assert min(len(job.fresh) for job in jobs) >= 8


def test_much_more_time_than_an_estimate_can_be_wrong_by_is_a_gap():
    chunks = [
        replace(chunk, duration_s=5.0, is_estimated=True) for chunk in stream(6) + stream(6, first=6, start_s=T0 + 60)
    ]
    assert [place.stretch for place in place_chunks(chunks, RULES)] == [0] * 6 + [1] * 6


def test_behind_an_estimated_length_no_start_is_named():
    chunks = stream(6) + stream(6, first=6, start_s=T0 + 31.5)
    chunks[2] = replace(chunks[2], duration_s=4.0, is_estimated=True)
    (job,) = plan(chunks, closing=True)
    assert [chunk.start_s for chunk in job.chunks] == [0.0, *[None] * 11]


def test_a_long_upload_of_estimated_length_is_a_job_of_its_own_at_once():
    chunks = [*stream(3), ChunkInfo("long", 3, 3, T0 + 15, 1800.0, is_estimated=True)]
    assert ["long"] in [ids(job) for job in plan(chunks)]


def test_a_single_short_recording_is_a_job_once_closed():
    (job,) = plan([ChunkInfo("only", 0, duration_s=4.0)], closing=True)
    assert job.fresh == ("only",)


def test_audio_that_is_no_longer_kept_gives_no_context():
    chunks = [ChunkInfo(**{**chunk.__dict__, "available": False}) for chunk in stream(20, covered=True)]
    late = stream(1, first=20, start_s=T0 + 100)
    (job,) = plan(chunks + late, closing=True)
    assert ids(job) == ["c0020"]


def test_batches_of_a_minute_are_jobs_of_a_minute():
    chunks = stream(3, 60.0)
    jobs = plan(chunks)
    assert [job.fresh for job in jobs] == [("c0000", "c0001")]
    assert [job.fresh for job in plan(cover(chunks, jobs), closing=True)] == [("c0002",)]


def test_a_flood_of_tiny_chunks_is_cut_into_jobs_that_fit_an_offer():
    chunks = [
        ChunkInfo(f"c{n:05d}", arrival=n, sequence=n, captured_at_s=T0 + n * 0.02, duration_s=0.02)
        for n in range(2 * MAX_JOB_CHUNKS)
    ]
    plans = plan(chunks, closing=True)
    assert sorted(chunk_id for job in plans for chunk_id in job.fresh) == [chunk.chunk_id for chunk in chunks]
    assert max(len(job.chunks) for job in plans) <= MAX_JOB_CHUNKS
    assert len(plans) < 10


def test_chunks_without_sequence_or_time_keep_the_order_of_arrival():
    chunks = [ChunkInfo(name, arrival, duration_s=10.0) for arrival, name in enumerate("badc")]
    (job,) = plan(chunks, closing=True)
    assert ids(job) == ["b", "a", "d", "c"]


def test_a_chunk_without_a_time_goes_behind_its_sequence():
    chunks = stream(5)
    chunks[2] = ChunkInfo("c0002", 9, 2, None, 5.0)
    assert [place.chunk_id for place in place_chunks(chunks, RULES)] == [f"c{n:04d}" for n in range(5)]


def test_the_same_time_recorded_twice_is_another_stretch():
    again = ChunkInfo("again", 9, None, T0 + 5.0, 5.0)
    placed = {place.chunk_id: place for place in place_chunks([*stream(4), again], RULES)}
    assert placed["again"].stretch != placed["c0001"].stretch


chunk_lists = st.lists(
    st.tuples(
        st.sampled_from([0.0, 2.0, 5.0, 15.0, 60.0, 119.0, 121.0, 900.0]),
        st.sampled_from([None, None, 0.0, 0.3, 1.0, 3.0, 50.0]),  # an estimate, over the true length
        st.sampled_from([0.0, 0.3, 1.5, 5.0, 100.0]),
        st.booleans(),
        st.booleans(),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=60,
)


def build(drawn):
    chunks, at_s, sequence = [], T0, 0
    for arrival, (duration_s, wrong_by, gap_s, captured, covered, skipped) in enumerate(drawn):
        sequence += 1 + (skipped == 3)
        at_s += gap_s
        chunks.append(
            ChunkInfo(
                f"c{arrival}",
                arrival,
                sequence if skipped else None,
                at_s if captured else None,
                duration_s if wrong_by is None else duration_s * wrong_by,
                is_estimated=wrong_by is not None,
                covered=covered,
            )
        )
        at_s += duration_s
    return chunks


@settings(max_examples=300, deadline=None)
@given(drawn=chunk_lists, seed=st.integers(0, 99))
def test_any_chunks_are_each_fresh_in_one_job_once_closing(drawn, seed):
    chunks = build(drawn)
    plans = plan(chunks, closing=True)
    fresh = [chunk_id for job in plans for chunk_id in job.fresh]
    assert sorted(fresh) == sorted(chunk.chunk_id for chunk in chunks if not chunk.covered)
    shuffled = chunks[:]
    random.Random(seed).shuffle(shuffled)
    assert plan(shuffled, closing=True) == plans


@settings(max_examples=300, deadline=None)
@given(drawn=chunk_lists, closing=st.booleans(), idle_s=st.sampled_from([0.0, 30.0]))
def test_any_job_is_bounded_and_never_a_short_chunk_alone_beside_neighbours(drawn, closing, idle_s):
    chunks = build(drawn)
    placed = place_chunks(chunks, RULES)
    order, length_s = [place.chunk_id for place in placed], {place.chunk_id: place.duration_s for place in placed}
    for job in plan(chunks, closing=closing, idle_s=idle_s):
        listed = ids(job)
        assert listed == [chunk_id for chunk_id in order if chunk_id in listed]
        assert set(job.fresh) <= set(listed)
        if len(listed) > 1:
            assert sum(map(length_s.__getitem__, listed)) <= 2 * RULES.max_job_s + RULES.overlap_s
        if sum(map(length_s.__getitem__, listed)) < RULES.min_tail_s:
            around = [order.index(listed[0]) - 1, order.index(listed[-1]) + 1]
            neighbours = [length_s[order[place]] for place in around if 0 <= place < len(order)]
            assert all(duration_s > RULES.max_job_s for duration_s in neighbours)


@settings(max_examples=100, deadline=None)
@given(count=st.integers(1, 80), duration_s=st.sampled_from([2.0, 5.0, 10.0, 30.0, 60.0]))
def test_a_live_stream_planned_chunk_by_chunk_never_loses_a_chunk_or_makes_a_short_job(count, duration_s):
    chunks: list = []
    jobs: list = []
    for chunk in stream(count, duration_s):
        chunks = [*cover(chunks, jobs), chunk]
        jobs += plan(chunks)
    chunks = cover(chunks, jobs)
    jobs += plan(chunks, closing=True)
    fresh = [chunk_id for job in jobs for chunk_id in job.fresh]
    assert fresh == [chunk.chunk_id for chunk in chunks]
    if count * duration_s >= 15.0:
        assert all(seconds(chunks, ids(job)) >= min(60.0, count * duration_s) or len(job.fresh) > 1 for job in jobs)


@pytest.mark.parametrize("captured", [True, False])
@pytest.mark.parametrize("count", [6, 12])
def test_audio_that_comes_again_under_new_ids_makes_one_job_where_the_first_is_not_kept(captured, count):
    gone = [replace(chunk, available=False) for chunk in stream(12, captured=captured, covered=True)]
    again = [replace(chunk, chunk_id=f"again{chunk.arrival}", arrival=100 + chunk.arrival) for chunk in gone]
    fresh = [replace(chunk, covered=False, available=True) for chunk in again[:count]]
    assert plan([*gone, *fresh]) == ()
    (job,) = plan([*gone, *fresh], closing=True)
    assert ids(job) == [f"again{place}" for place in range(count)]
