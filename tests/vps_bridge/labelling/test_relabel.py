"""From the evidence of a whole conversation to its labels: what a user sees in the conversation."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerVoice
from vps_bridge.conversations.store import StoredSegment, speaker_number
from vps_bridge.labelling.relabel import ConversationEvidence, JobEvidence, RelabelPolicy, relabel
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, plan_jobs

POLICY = RelabelPolicy()
T0 = 1_700_000_000.0
PEOPLE = dict(zip("ABCD", np.linalg.qr(np.random.default_rng(7).normal(size=(32, 4)))[0].T, strict=True))
DIALOGUE = [("ABAC"[n % 4], n * 8.0 + 0.5, n * 8.0 + 7.0 + (n % 3) * 0.4) for n in range(40)]


def chunks_of(length_s, chunk_s=5.0, captured_at_s=T0):
    return [
        ChunkInfo(f"c{n:03d}", n, n, captured_at_s + n * chunk_s, chunk_s) for n in range(round(length_s / chunk_s))
    ]


def diarize(chunks, plan, spoken, *, seed=0):
    """Return what an agent would find: the people who speak in the job's audio, under the job's own labels."""
    rng = np.random.default_rng([seed, sum(map(ord, plan.chunks[0].chunk_id))])
    begin = {chunk.chunk_id: chunk.captured_at_s - T0 for chunk in chunks}
    length = {chunk.chunk_id: chunk.duration_s for chunk in chunks}
    spans, turns, at_s = [], [], 0.0
    for planned in plan.chunks:
        at_s = at_s if planned.start_s is None else planned.start_s
        spans.append(ChunkSpan(chunk_id=planned.chunk_id, start_s=at_s, duration_s=length[planned.chunk_id]))
        first_s, last_s = begin[planned.chunk_id], begin[planned.chunk_id] + length[planned.chunk_id]
        for name, start_s, end_s in spoken:
            if start_s < last_s and end_s > first_s:
                turns.append((max(start_s, first_s) - first_s + at_s, min(end_s, last_s) - first_s + at_s, name))
        at_s += length[planned.chunk_id]
    names = sorted(sorted({name for *_, name in turns}), key=lambda name: rng.random())
    label = {name: f"SPEAKER_{index:02d}" for index, name in enumerate(names)}
    speakers = []
    for name in names:
        voice = PEOPLE[name] + rng.normal(scale=0.04, size=32)
        speech_s = sum(end_s - start_s for start_s, end_s, who in turns if who == name)
        data = voice.astype("<f4").tobytes()
        speakers.append(SpeakerVoice(speaker=label[name], clean_speech_s=speech_s, embedding=data))
    exclusive = tuple(SpeakerTurn(start_s=a, end_s=b, speaker=label[name]) for a, b, name in sorted(turns))
    job_id = "job-" + plan.fresh[0]
    return JobEvidence(job_id, tuple(spans), exclusive, exclusive, tuple(speakers), "wespeaker", "1")


def evidence_of(spoken, length_s=320.0, **fields):
    chunks = chunks_of(length_s)
    plans = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    jobs = tuple(diarize(chunks, plan, spoken) for plan in plans)
    return ConversationEvidence("c1", tuple(chunks), jobs, started_at_s=T0, **fields)


def transcript(spoken, speaker="SPEAKER_00", **fields):
    return tuple(
        StoredSegment(
            f"s{n:03d}",
            start_s,
            end_s,
            speaker=speaker,
            speaker_id=speaker_number(speaker),
            original_speaker=speaker,
            **fields,
        )
        for n, (_, start_s, end_s) in enumerate(spoken)
    )


def apply(segments, result):
    speakers = {segment.id: segment.speaker for segment in result.segments}
    return tuple(
        replace(segment, speaker=speakers[segment.id], speaker_id=speaker_number(speakers[segment.id]))
        for segment in segments
    )


def partition(result):
    groups: dict = {}
    for segment in result.segments:
        groups.setdefault(segment.speaker, set()).add(segment.id)
    return {frozenset(group) for group in groups.values()}


def names_by_label(result, spoken):
    return {segment.speaker: spoken[int(segment.id[1:])][0] for segment in result.segments}


def test_each_voice_has_one_label_through_all_jobs():
    result = relabel(evidence_of(DIALOGUE, segments=transcript(DIALOGUE)), POLICY)
    labels: dict = {}
    for segment, (name, *_) in zip(result.segments, DIALOGUE, strict=True):
        labels.setdefault(name, set()).add(segment.speaker)
    assert labels == {"A": {"SPEAKER_00"}, "B": {"SPEAKER_01"}, "C": {"SPEAKER_02"}}
    assert result.speakers == 3
    assert not result.left_alone
    assert not result.warnings


def test_applying_and_relabelling_again_changes_nothing():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    first = relabel(evidence, POLICY)
    second = relabel(replace(evidence, segments=apply(evidence.segments, first), voices=first.voices), POLICY)
    assert second.changed == ()
    assert second.voice_changes == ()
    assert second.voices == first.voices
    assert second.write_key == first.write_key


def test_the_order_of_arrival_does_not_matter():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    expected = relabel(evidence, POLICY)
    for seed in range(5):
        shuffler = random.Random(seed)
        mixed = replace(
            evidence,
            chunks=tuple(shuffler.sample(evidence.chunks, len(evidence.chunks))),
            jobs=tuple(shuffler.sample(evidence.jobs, len(evidence.jobs))),
        )
        assert relabel(mixed, POLICY) == expected


def test_numbers_stay_while_jobs_come_in_one_by_one():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    book, segments = evidence.voices, evidence.segments
    seen: dict = {}
    for count in range(1, len(evidence.jobs) + 1):
        result = relabel(replace(evidence, jobs=evidence.jobs[:count], voices=book, segments=segments), POLICY)
        book, segments = result.voices, apply(segments, result)
        for segment in result.segments:
            if segment.speaker is not None:
                assert seen.setdefault(segment.id, segment.speaker) == segment.speaker
        assert not [change for change in result.voice_changes if change.change != "new"]
    assert len(seen) == len(DIALOGUE)
    assert len({(name, seen[f"s{n:03d}"]) for n, (name, *_) in enumerate(DIALOGUE)}) == 3


def test_the_partition_is_the_same_whichever_job_finishes_first():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    whole = relabel(evidence, POLICY)
    backwards = relabel(replace(evidence, jobs=evidence.jobs[-1:]), POLICY)
    after = relabel(replace(evidence, voices=backwards.voices, segments=apply(evidence.segments, backwards)), POLICY)
    assert partition(after) == partition(whole)


def test_a_voice_found_later_in_earlier_audio_takes_the_next_number():
    spoken = [("B", 1.0, 58.0), ("A", 65.0, 119.0)]
    evidence = evidence_of(spoken, 120.0, segments=transcript(spoken))
    late = [chunk for chunk in evidence.chunks if chunk.captured_at_s >= T0 + 60]
    plans = plan_jobs(late, closing=True, idle_s=0.0, rules=AssemblyRules())
    first = relabel(replace(evidence, jobs=tuple(diarize(late, plan, spoken) for plan in plans)), POLICY)
    assert [segment.speaker for segment in first.segments] == [None, "SPEAKER_00"]
    second = relabel(replace(evidence, voices=first.voices, segments=apply(evidence.segments, first)), POLICY)
    assert [segment.speaker for segment in second.segments] == ["SPEAKER_01", "SPEAKER_00"]


@pytest.mark.parametrize("label", [{"label_source": "manual"}, {"is_user": True}, {"person_id": "p"}])
def test_a_human_label_is_never_touched_and_is_counted(label):
    segments = list(transcript(DIALOGUE))
    segments[4] = replace(segments[4], speaker="SPEAKER_07", speaker_id=7, **label)
    result = relabel(evidence_of(DIALOGUE, segments=tuple(segments)), POLICY)
    assert result.segments[4].speaker == "SPEAKER_07"
    assert ("s004", "human") in result.left_alone
    assert "s004" not in {change.segment_id for change in result.changed}


def test_the_number_on_a_human_segment_goes_to_its_voice_and_to_no_other():
    segments = list(transcript(DIALOGUE))
    segments[1] = replace(segments[1], speaker="SPEAKER_00", label_source="manual", person_id="bert")
    result = relabel(evidence_of(DIALOGUE, segments=tuple(segments)), POLICY)
    assert names_by_label(result, DIALOGUE) == {"SPEAKER_00": "B", "SPEAKER_01": "A", "SPEAKER_02": "C"}


def irregular(turns, *, seed=3):
    """Two people with turns and pauses of every length: speech that fits the transcript at one offset only."""
    draw, spoken, at_s = random.Random(seed), [], 0.5
    for number in range(turns):
        length_s = draw.uniform(1.0, 9.0)
        spoken.append(("AB"[number % 2], at_s, at_s + length_s))
        at_s += length_s + draw.uniform(0.3, 3.0)
    return spoken


def test_a_label_of_speech_to_text_on_a_two_speaker_segment_is_taken_by_no_other_voice():
    spoken = irregular(30)
    start_s, end_s = spoken[14][1], spoken[15][2]
    block = StoredSegment("block", start_s, end_s, speaker="SPEAKER_01", speaker_id=1, original_speaker="SPEAKER_01")
    others = [*transcript(spoken[:14]), *transcript(spoken)[16:]]
    result = relabel(evidence_of(spoken, 300.0, segments=(block, *others)), POLICY)
    assert result.segments[0].speaker == "SPEAKER_01"
    assert ("block", "two_speakers") in result.left_alone
    with_that_number = {spoken[int(segment.id[1:])][0] for segment in result.segments[1:] if segment.speaker_id == 1}
    most_of_it = max(spoken[14:16], key=lambda turn: turn[2] - turn[1])[0]
    assert with_that_number <= {most_of_it}


def test_a_segment_without_speech_keeps_its_label_where_speech_to_text_told_speakers_apart():
    silent = StoredSegment("silent", 319.2, 319.9, speaker="SPEAKER_05", speaker_id=5, original_speaker="SPEAKER_05")
    result = relabel(evidence_of(DIALOGUE, segments=(*transcript(DIALOGUE), silent)), POLICY)
    assert result.segments[-1].speaker == "SPEAKER_05"
    assert ("silent", "low_coverage") in result.left_alone


def test_a_segment_without_speech_reads_unknown_where_it_only_had_the_default():
    silent = StoredSegment("silent", 319.2, 319.9, speaker="SPEAKER_00", speaker_id=0, original_speaker="SPEAKER_00")
    result = relabel(evidence_of(DIALOGUE, segments=(*transcript(DIALOGUE), silent)), POLICY)
    assert result.segments[-1].speaker is None


def test_a_late_segment_of_speech_to_text_does_not_borrow_a_published_number():
    segments = transcript(DIALOGUE, "SPEAKER_00")
    first = relabel(evidence_of(DIALOGUE, segments=segments), POLICY)
    late = StoredSegment("late", 400.0, 405.0, speaker="SPEAKER_01", speaker_id=1, original_speaker="SPEAKER_01")
    second = relabel(evidence_of(DIALOGUE, segments=(*apply(segments, first), late), voices=first.voices), POLICY)
    assert second.segments[-1].speaker is None


def test_a_television_that_no_segment_contains_gets_no_number():
    spoken = [*DIALOGUE, ("D", 321.0, 359.0)]
    result = relabel(evidence_of(spoken, 360.0, segments=transcript(DIALOGUE)), POLICY)
    assert result.speakers == 3
    assert {turn.speaker_id for turn in result.turns} == {0, 1, 2}


def test_without_segments_every_voice_is_numbered_in_order_of_first_speech():
    result = relabel(evidence_of(DIALOGUE), POLICY)
    assert [turn.speaker_id for turn in result.turns][:4] == [0, 1, 0, 2]
    assert result.turns[0].start_s == pytest.approx(0.5)
    assert result.speakers == 3


def test_every_second_comes_from_one_job():
    result = relabel(evidence_of(DIALOGUE), POLICY)
    ordered = sorted((turn.start_s, turn.end_s) for turn in result.turns)
    assert all(later[0] >= earlier[1] - 0.002 for earlier, later in pairwise(ordered))
    assert sum(end_s - start_s for start_s, end_s in ordered) == pytest.approx(
        sum(end_s - start_s for _, start_s, end_s in DIALOGUE), abs=0.1
    )
    assert result.audio_s == pytest.approx(320.0)


def test_audio_that_begins_after_the_transcript_is_moved_by_captured_at():
    spoken = [(name, start_s + 45.0, end_s + 45.0) for name, start_s, end_s in DIALOGUE]
    evidence = replace(evidence_of(DIALOGUE), started_at_s=T0 - 45.0, segments=transcript(spoken))
    result = relabel(evidence, POLICY)
    assert len(names_by_label(result, DIALOGUE)) == 3
    assert result.offsets[0] == pytest.approx(45.0)


def test_a_single_upload_without_any_time_begins_with_the_transcript():
    chunk = ChunkInfo("c000", 0, None, None, 320.0)
    whole = replace(chunk, captured_at_s=T0)
    (plan,) = plan_jobs([whole], closing=True, idle_s=0.0, rules=AssemblyRules())
    evidence = ConversationEvidence(
        "c1",
        (replace(chunk, duration_s=2.0, is_estimated=True),),
        (diarize([whole], plan, DIALOGUE),),
        transcript(DIALOGUE),
    )
    assert len(names_by_label(relabel(evidence, POLICY), DIALOGUE)) == 3


@pytest.mark.parametrize("wrong", [range(64), range(30, 64)], ids=["all", "half"])
def test_chunks_dated_1970_neither_break_the_relabelling_nor_get_wrong_labels(wrong):
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE, "SPEAKER_04"))
    chunks = tuple(
        replace(chunk, captured_at_s=chunk.captured_at_s - T0 + 100.0) if index in wrong else chunk
        for index, chunk in enumerate(evidence.chunks)
    )
    result = relabel(replace(evidence, chunks=chunks), POLICY)
    labels = names_by_label(result, DIALOGUE)
    assert all(
        labels[segment.speaker] == DIALOGUE[int(segment.id[1:])][0]
        for segment in result.segments
        if segment.speaker != "SPEAKER_04"
    )
    assert relabel(replace(evidence, chunks=chunks, segments=()), POLICY).speakers == 3


def test_wrong_sample_rates_are_flagged():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    stretched = tuple(replace(chunk, captured_at_s=T0 + n * 6.0) for n, chunk in enumerate(evidence.chunks))
    assert "audio.rate_suspect" in relabel(replace(evidence, chunks=stretched), POLICY).warnings


def test_warnings_of_many_jobs_that_differ_by_numbers_hide_no_others():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    (job, *_) = evidence.jobs
    quiet = (*(f"audio.quiet: peak of -{n} dBFS" for n in range(50, 80)), "audio.antiphase")
    warnings = relabel(replace(evidence, jobs=(replace(job, warnings=quiet), *evidence.jobs[1:])), POLICY).warnings
    assert "audio.antiphase" in warnings
    assert [line for line in warnings if line.startswith("audio.quiet")] == [
        "audio.quiet: and 27 more with other numbers",
        *(f"audio.quiet: peak of -{n} dBFS" for n in (50, 51, 52)),
    ]


def test_two_labels_of_one_person_join_what_the_voices_do_not():
    spoken = [("A", 1.0, 58.0), ("B", 181.0, 238.0)]
    evidence = evidence_of(spoken, 240.0, segments=transcript(spoken))
    assert relabel(evidence, POLICY).speakers == 2
    named = tuple(replace(segment, person_id="p", label_source="manual") for segment in evidence.segments)
    assert relabel(replace(evidence, segments=named), POLICY).speakers == 1


def test_two_persons_are_never_one_voice():
    spoken = [("A", 1.0, 58.0), ("A", 181.0, 238.0)]
    evidence = evidence_of(spoken, 240.0, segments=transcript(spoken))
    assert relabel(evidence, POLICY).speakers == 1
    named = tuple(
        replace(segment, person_id=f"p{n}", label_source="manual") for n, segment in enumerate(evidence.segments)
    )
    assert relabel(replace(evidence, segments=named), POLICY).speakers == 2


def test_a_merge_retires_a_number_and_reports_it():
    spoken = [("A", 1.0, 58.0), ("B", 61.0, 90.0), ("A", 181.0, 238.0)]
    evidence = evidence_of(spoken, 240.0, segments=transcript(spoken))
    split = tuple(
        replace(segment, person_id=f"p{n}", label_source="manual") for n, segment in enumerate(evidence.segments)
    )
    first = relabel(replace(evidence, segments=split), POLICY)
    assert first.speakers == 3
    second = relabel(replace(evidence, voices=first.voices), POLICY)
    (merged,) = [change for change in second.voice_changes if change.change == "merged"]
    assert (second.speakers, second.voices.retired) == (2, (merged.speaker_id,))


def test_no_evidence_at_all_is_no_label():
    result = relabel(ConversationEvidence("c1", (), (), transcript(DIALOGUE, "SPEAKER_03")), POLICY)
    assert result.turns == ()
    assert {reason for _, reason in result.left_alone} <= {"no_audio"}
    assert relabel(ConversationEvidence("c1", (), ()), POLICY).segments == ()


def test_embeddings_that_are_no_numbers_are_reported_and_do_no_harm():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    job = evidence.jobs[0]
    broken = [np.full(32, np.nan, "<f4").tobytes(), b"abc", bytes(128)]
    speakers = tuple(
        voice.model_copy(update={"embedding": data}) for voice, data in zip(job.speakers, broken, strict=True)
    )
    result = relabel(replace(evidence, jobs=(replace(job, speakers=speakers), *evidence.jobs[1:])), POLICY)
    assert "embedding.invalid" in result.warnings


def test_embeddings_of_two_models_are_not_compared_and_are_flagged():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    other = tuple(replace(job, embedding_revision="2") if index % 2 else job for index, job in enumerate(evidence.jobs))
    assert "embedding.mixed_models" in relabel(replace(evidence, jobs=other), POLICY).warnings


def test_the_write_key_changes_with_the_evidence_and_with_the_policy():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    keys = {
        relabel(evidence, POLICY).write_key,
        relabel(replace(evidence, jobs=evidence.jobs[1:]), POLICY).write_key,
        relabel(replace(evidence, segments=evidence.segments[1:]), POLICY).write_key,
        relabel(evidence, replace(POLICY, assignment=replace(POLICY.assignment, min_coverage=0.6))).write_key,
    }
    assert len(keys) == 4


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.tuples(st.floats(-50, 500), st.floats(-50, 500)), max_size=30),
    speaker=st.sampled_from([None, "SPEAKER_00", "SPEAKER_1", "Alice", "SPEAKER_99", "X_99999999999999999999"]),
    manual=st.booleans(),
)
def test_any_segments_survive_and_stay_as_relabelled(times, speaker, manual):
    segments = tuple(
        StoredSegment(
            f"s{n}",
            a,
            b,
            speaker=speaker,
            original_speaker=speaker,
            label_source="manual" if manual and n % 2 else None,
        )
        for n, (a, b) in enumerate(times)
    )
    evidence = evidence_of(DIALOGUE[:12], 100.0, segments=segments)
    first = relabel(evidence, POLICY)
    assert [segment.id for segment in first.segments] == [segment.id for segment in segments]
    assert 99 not in {voice.speaker_id for voice in first.voices.voices}
    for before, after in zip(segments, first.segments, strict=True):
        assert not before.is_human_labelled or after.speaker == before.speaker
    second = relabel(replace(evidence, segments=apply(segments, first), voices=first.voices), POLICY)
    assert second.changed == ()
    assert second.voices == first.voices
