"""A chunk that nobody could decode: what follows keeps its place where that is known, and else has no wrong one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vps_bridge.labelling.test_relabel import DIALOGUE, POLICY, evidence_of, transcript
from vps_bridge.labelling.evidence import ConversationEvidence, build_audio_timeline
from vps_bridge.labelling.relabel import relabel

LOST = "c020"  # of 64 chunks of 5 s


def without(evidence: ConversationEvidence, *, is_timed: bool, length_s: float, is_estimated: bool):
    """Return the evidence as agents give it that cannot decode one chunk."""
    jobs = tuple(
        replace(
            job,
            chunks=tuple(span for span in job.chunks if span.chunk_id != LOST),
            undecoded=frozenset({LOST} & {span.chunk_id for span in job.chunks}),
        )
        for job in evidence.jobs
    )
    chunks = tuple(
        replace(
            chunk,
            captured_at_s=chunk.captured_at_s if is_timed else None,
            duration_s=length_s if chunk.chunk_id == LOST else chunk.duration_s,
            is_estimated=is_estimated and chunk.chunk_id == LOST,
        )
        for chunk in evidence.chunks
    )
    return replace(evidence, chunks=chunks, jobs=jobs)


@pytest.mark.parametrize("is_timed", [True, False], ids=["captured_at", "no captured_at"])
@pytest.mark.parametrize(
    ("length_s", "is_estimated"), [(5.0, False), (40.0, True), (0.2, True)], ids=["stated", "too long", "too short"]
)
def test_no_label_is_wrong_and_what_follows_keeps_a_place_that_is_known(is_timed, length_s, is_estimated):
    base = replace(evidence_of(DIALOGUE), segments=transcript(DIALOGUE))
    evidence = without(base, is_timed=is_timed, length_s=length_s, is_estimated=is_estimated)
    result = relabel(evidence, POLICY)
    heard = [label for label in result.segments if label.coverage]
    people: dict[str | None, set[str]] = {label.speaker: set() for label in heard}
    for label in heard:
        people[label.speaker].add(DIALOGUE[int(label.id[1:])][0])
    assert all(len(names) == 1 for names in people.values()), people
    is_told = any(line.startswith(f"audio.length_unknown: chunk {LOST}") for line in result.warnings)
    assert is_told is (is_estimated and not is_timed)
    if not is_told:
        behind = [label for label in heard if DIALOGUE[int(label.id[1:])][1] >= 110.0]
        assert len(behind) >= 0.9 * sum(start_s >= 110.0 for _, start_s, _ in DIALOGUE)


def test_of_a_job_that_failed_as_a_whole_the_length_is_unknown_too_once_nothing_more_is_expected():
    evidence = without(evidence_of(DIALOGUE), is_timed=False, length_s=40.0, is_estimated=True)
    failed = replace(evidence, jobs=tuple(replace(job, undecoded=frozenset()) for job in evidence.jobs))
    while_it_is_tried = build_audio_timeline(failed, POLICY.assembly)
    at_the_end = build_audio_timeline(replace(failed, is_final=True), POLICY.assembly)
    assert {place.stretch for place in while_it_is_tried.placed} == {0}
    assert {place.stretch for place in at_the_end.placed} == {0, 1}


@pytest.mark.parametrize("is_timed", [True, False], ids=["captured_at", "no captured_at"])
def test_what_nobody_heard_leaves_no_trace_once_it_came_again(is_timed):
    base = evidence_of(DIALOGUE)
    timed = tuple(replace(c, captured_at_s=c.captured_at_s if is_timed else None) for c in base.chunks)
    again = tuple(replace(chunk, arrival=1_000 + chunk.arrival) for chunk in timed)
    failed = tuple(replace(chunk, chunk_id=f"failed-{chunk.chunk_id}", is_estimated=True) for chunk in timed)
    expected = relabel(replace(base, segments=transcript(DIALOGUE), chunks=timed, is_final=True), POLICY)
    found = relabel(replace(base, segments=transcript(DIALOGUE), chunks=(*failed, *again), is_final=True), POLICY)
    assert sum(label.speaker_id is not None for label in expected.segments) > 0.9 * len(DIALOGUE)
    assert (found.segments, found.warnings) == (expected.segments, expected.warnings)
