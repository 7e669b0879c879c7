"""The last moments before a hole that may still be filled have no label until it is, or nothing more comes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.turns import ChunkSpan, SpeakerTurn
from tests.vps_bridge.labelling.test_relabel import POLICY, evidence_of, transcript
from vps_bridge.labelling.evidence import ConversationEvidence, build_audio_timeline
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.relabel import relabel
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, plan_jobs

CHUNK_S, T0 = 5.0, 1_700_000_000.0
RULES = AssemblyRules()


def chunk(number: int, arrival: int) -> ChunkInfo:
    return ChunkInfo(f"c{number}", arrival, number, T0 + number * CHUNK_S, CHUNK_S)


def job(name: str, *numbers: int) -> JobEvidence:
    """Return a job on these chunks, one after the other, in which one person speaks all the time."""
    spans = tuple(
        ChunkSpan(chunk_id=f"c{number}", start_s=place * CHUNK_S, duration_s=CHUNK_S)
        for place, number in enumerate(numbers)
    )
    turns = (SpeakerTurn(start_s=0.0, end_s=len(numbers) * CHUNK_S, speaker="A"),)
    return JobEvidence(name, spans, turns, turns, (), "", "")


def labelled(chunks, jobs, *, is_final=False) -> set[int]:
    """Return the tenths of a second from T0 on that some job decides."""
    evidence = ConversationEvidence("c", tuple(chunks), tuple(jobs), is_final=is_final)
    timeline = build_audio_timeline(evidence, RULES)
    zero_s = min(chunk.captured_at_s for chunk in chunks) - T0
    return {
        step
        for stretch, spans in timeline.audio.items()
        for start_s, end_s in spans
        for step in range(
            round(10 * (start_s + timeline.origins[stretch] + zero_s)),
            round(10 * (end_s + timeline.origins[stretch] + zero_s)),
        )
    }


def seconds(*spans: tuple[float, float]) -> set[int]:
    return {step for start_s, end_s in spans for step in range(round(10 * start_s), round(10 * end_s))}


ACROSS = [chunk(0, 0), chunk(1, 1), chunk(3, 2), chunk(4, 3)]


def test_half_a_second_on_either_side_of_a_hole_waits_for_what_is_missing():
    assert labelled(ACROSS, [job("j0", 0, 1, 3, 4)]) == seconds((0, 9.5), (15.5, 25))


def test_it_waits_for_the_job_with_the_chunk_that_came_and_then_has_its_label():
    came = [*ACROSS, chunk(2, 4)]
    first = job("j0", 0, 1, 3, 4)
    assert labelled(came, [first]) == seconds((0, 9.5), (15.5, 25))
    assert labelled(came, [first, job("j1", 1, 2, 3)]) == seconds((0, 25))


def test_a_chunk_that_cannot_be_decoded_is_not_waited_for():
    came = [*ACROSS, chunk(2, 4)]
    tried = replace(job("j1", 1, 3), undecoded=frozenset({"c2"}))
    assert labelled(came, [job("j0", 0, 1, 3, 4), tried]) == seconds((0, 10), (15, 25))


def test_where_nothing_more_comes_all_that_was_heard_has_its_label():
    assert labelled(ACROSS, [job("j0", 0, 1, 3, 4)], is_final=True) == seconds((0, 10), (15, 25))


def test_chunks_in_order_wait_for_nothing():
    chunks = [chunk(number, number) for number in range(6)]
    assert labelled(chunks[:3], [job("j0", 0, 1, 2)]) == seconds((0, 15))
    assert labelled(chunks, [job("j0", 0, 1, 2)]) == seconds((0, 15))


def test_a_pause_of_the_recording_is_no_hole():
    chunks = [chunk(0, 0), chunk(1, 1), replace(chunk(6, 2), sequence=2)]
    assert labelled(chunks, [job("j0", 0, 1, 6)]) == seconds((0, 10), (30, 35))


def test_chunks_without_numbers_tell_of_no_hole():
    unnumbered = [replace(each, sequence=None) for each in ACROSS]
    assert labelled(unnumbered, [job("j0", 0, 1, 3, 4)]) == seconds((0, 10), (15, 25))


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(24)), st.sets(st.integers(0, 23), max_size=4), st.booleans())
def test_what_has_a_label_keeps_one_whatever_comes_and_at_the_end_all_has_one(order, lost, is_late):
    """With results at once, or each only after the next job was made."""
    rules = AssemblyRules(min_job_s=20.0, max_job_s=40.0)
    chunks: list[ChunkInfo] = []
    jobs: list[JobEvidence] = []
    shown: set[int] = set()
    came = [number for number in order if number not in lost]
    for arrival, number in enumerate([*came, None]):
        if number is not None:
            chunks.append(chunk(number, arrival))
        for plan in plan_jobs(chunks, closing=number is None, idle_s=0.0, rules=rules):
            jobs.append(job(f"j{len(jobs):02d}", *(int(planned.chunk_id[1:]) for planned in plan.chunks)))
            chunks = [replace(each, covered=each.covered or each.chunk_id in plan.fresh) for each in chunks]
        heard = jobs[:-1] if is_late and number is not None else jobs
        now = labelled(chunks, heard, is_final=number is None)
        assert shown <= now
        shown = now
    assert shown == seconds(*((number * CHUNK_S, (number + 1) * CHUNK_S) for number in came))


def test_labels_of_the_end_are_written_though_no_result_is_new():
    spoken = [("A", 1.0, 9.9), ("B", 15.1, 24.0), ("A", 30.0, 60.0), ("B", 60.5, 100.0)]
    evidence = evidence_of(spoken, segments=transcript(spoken))
    left = {chunk.chunk_id for chunk in evidence.chunks if chunk.sequence == 2}
    chunks = tuple(replace(each, covered=True) for each in evidence.chunks if each.chunk_id not in left)
    across = replace(evidence, chunks=chunks, jobs=tuple(_without(job, left) for job in evidence.jobs))
    live, final = relabel(across, POLICY), relabel(replace(across, is_final=True), POLICY)
    assert final.audio_s > live.audio_s
    assert final.write_key != live.write_key


def _without(job: JobEvidence, left: set[str]) -> JobEvidence:
    return replace(job, chunks=tuple(span for span in job.chunks if span.chunk_id not in left))
