"""From evidence with missing, late and wrong times to labels: right ones, or those the transcript came with."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vps_bridge.labelling.test_relabel import (
    DIALOGUE,
    POLICY,
    T0,
    apply,
    diarize,
    evidence_of,
    irregular,
    transcript,
)
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.relabel import relabel
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, plan_jobs


@pytest.mark.parametrize("error_s", [-170.0, -20.0, -3.5, 3.5, 40.0, 3600.0, None])
def test_an_offset_that_the_times_get_wrong_is_found_by_the_speech(error_s):
    spoken = irregular(38)
    evidence = evidence_of(spoken, 300.0, segments=transcript(spoken))
    wrong = replace(evidence, started_at_s=None if error_s is None else T0 + error_s)
    result = relabel(wrong, POLICY)
    assert result.offsets[0] == pytest.approx(0.0, abs=0.25)
    labels = [(segment.speaker, spoken[int(segment.id[1:])][0]) for segment in result.segments]
    pairs = set(labels[2:-2])
    assert (len(pairs), {name for _, name in pairs}) == (2, {"A", "B"})
    assert None not in {speaker for speaker, _ in labels}, "an end that no offset fits keeps its label"


@pytest.mark.parametrize("seed", range(5))
def test_a_transcript_of_other_speech_leaves_every_label_alone(seed):
    spoken, other = irregular(38), irregular(38, seed=seed + 100)
    segments = transcript(other, "SPEAKER_04")
    for started_at_s, reason in ((T0, "clock.unverified"), (None, "clock.unknown")):
        result = relabel(replace(evidence_of(spoken, 300.0, segments=segments), started_at_s=started_at_s), POLICY)
        assert result.changed == ()
        (warning,) = result.warnings
        assert warning.startswith(f"{reason}: speech and transcript fit each other at no offset clearly enough")
        assert ("started_at of the conversation is missing" in warning) == (reason == "clock.unknown"), "what helps"
        assert {left for _, left in result.left_alone} == {reason}


def test_a_short_stretch_takes_its_place_beside_a_long_one():
    """No `started_at`, and a pause that the device did not send: captured_at of both stretches places the short one."""
    spoken = [turn for turn in irregular(38) if not 190.0 < (turn[1] + turn[2]) / 2 < 269.0]
    evidence = evidence_of(spoken, 300.0, segments=transcript(spoken))
    kept = tuple(chunk for chunk in evidence.chunks if not 200.0 <= chunk.captured_at_s - T0 < 265.0)
    plans = plan_jobs(kept, closing=True, idle_s=0.0, rules=AssemblyRules())
    jobs = tuple(diarize(kept, plan, spoken) for plan in plans)
    result = relabel(replace(evidence, chunks=kept, jobs=jobs, started_at_s=None), POLICY)
    assert result.offsets[0] == pytest.approx(0.0, abs=0.25)
    assert result.offsets[1] == pytest.approx(265.0, abs=0.25)


@pytest.mark.parametrize("seed", range(3))
def test_a_device_that_sends_no_silence_has_its_lines_labelled(seed):
    """Each line is a chunk with its time, and 0.3 s around it: alone none is long enough to be placed."""
    draw, spoken, at_s = random.Random(seed), [], 1.0
    for number in range(16):
        spoken.append(("AB"[number % 2], at_s, at_s + draw.uniform(3.0, 9.0)))
        at_s = spoken[-1][2] + draw.uniform(2.8, 20.0)
    chunks = [
        ChunkInfo(f"c{number:03d}", number, number, T0 + start_s - 0.3, end_s - start_s + 0.6)
        for number, (_, start_s, end_s) in enumerate(spoken)
    ]
    plans = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    jobs = tuple(diarize(chunks, plan, spoken, seed=seed) for plan in plans)
    evidence = replace(evidence_of(spoken, segments=transcript(spoken)), chunks=tuple(chunks), jobs=jobs)
    result = relabel(evidence, POLICY)
    assert result.left_alone == ()
    labels = {(segment.speaker, spoken[int(segment.id[1:])][0]) for segment in result.segments}
    assert labels == {("SPEAKER_00", "A"), ("SPEAKER_01", "B")}


def test_one_block_over_everything_gives_no_clock_and_keeps_its_label():
    segments = (StoredSegment("all", 0.0, 320.0, speaker="SPEAKER_04", original_speaker="SPEAKER_04"),)
    for started_at_s in (T0, T0 - 45.0, None):
        result = relabel(replace(evidence_of(DIALOGUE, segments=segments), started_at_s=started_at_s), POLICY)
        assert result.changed == ()
        assert result.left_alone[0][1].startswith("clock.")


def monologue(turns=24, *, seed=5):
    return [("A", start_s, end_s) for _, start_s, end_s in irregular(turns, seed=seed)]


@settings(max_examples=12, deadline=None)
@given(late_s=st.sampled_from([0.0, 2.0, 40.0, 59.0, 3600.0]), order=st.permutations(range(3)), has_time=st.booleans())
def test_jobs_that_arrive_singly_end_where_all_at_once_do(late_s, order, has_time):
    """A transcript that is late, one speaker: no label is lost on the way, and none differs at the end."""
    spoken = monologue(38)
    evidence = evidence_of(spoken, 300.0, segments=transcript(spoken))
    evidence = replace(evidence, started_at_s=T0 - late_s if has_time else None)
    at_once = relabel(evidence, POLICY)
    jobs, segments, book = (
        [evidence.jobs[place] for place in order[: len(evidence.jobs)]],
        evidence.segments,
        evidence.voices,
    )
    for count in range(1, len(jobs) + 1):
        result = relabel(replace(evidence, jobs=tuple(jobs[:count]), segments=segments, voices=book), POLICY)
        segments, book = apply(segments, result), result.voices
    assert [segment.speaker for segment in segments] == [segment.speaker for segment in at_once.segments]
    assert None not in {segment.speaker for segment in segments}


def test_a_label_taken_away_comes_back_where_the_clock_is_refused_later():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE, "SPEAKER_00"))
    wiped = tuple(replace(segment, speaker=None, speaker_id=None) for segment in evidence.segments)
    other = transcript(irregular(len(DIALOGUE), seed=9), "SPEAKER_00")
    moved = tuple(
        replace(segment, start_s=real.start_s, end_s=real.end_s) for segment, real in zip(wiped, other, strict=True)
    )
    result = relabel(replace(evidence, segments=moved), POLICY)
    assert {segment.speaker for segment in result.segments} == {"SPEAKER_00"}


@pytest.mark.parametrize("seed", range(3))
def test_a_label_taken_away_does_not_come_back_as_the_number_of_another_voice(seed):
    """Live: the lines that were not heard yet lose the default number, which then is a voice's; they never fit."""
    spoken = irregular(38)
    unlike = irregular(38, seed=seed + 100)
    segments = tuple(
        line if line.end_s < 200.0 else replace(line, start_s=other.start_s, end_s=other.end_s)
        for line, other in zip(transcript(spoken), transcript(unlike), strict=True)
        if line.end_s < 200.0 or other.start_s > 215.0
    )
    evidence = evidence_of(spoken, 300.0, segments=segments)
    first = relabel(replace(evidence, jobs=evidence.jobs[:1]), POLICY)
    late = {line.id for line in first.segments if line.speaker is None}
    result = relabel(replace(evidence, segments=apply(segments, first), voices=first.voices), POLICY)
    refused = late & {line for line, reason in result.left_alone if reason == "clock.unverified"}
    assert refused, "lines that nobody can place are told of"
    assert {line.speaker for line in result.segments if line.id in refused} == {None}


def test_a_label_that_comes_back_without_a_vote_is_told_of():
    """A block of two speakers that was not heard yet lost the default number: it comes back, and is that of a voice."""
    spoken = irregular(38)
    lines = transcript(spoken)
    segments = (*lines[:-4], replace(lines[-4], end_s=lines[-3].end_s), *lines[-2:])
    evidence = evidence_of(spoken, 300.0, segments=segments)
    first = relabel(replace(evidence, jobs=evidence.jobs[:1]), POLICY)
    block = segments[-3].id
    assert [line.speaker for line in first.segments if line.id == block] == [None]
    result = relabel(replace(evidence, segments=apply(segments, first), voices=first.voices), POLICY)
    assert [line.speaker for line in result.segments if line.id == block] == ["SPEAKER_00"]
    assert dict(result.left_alone)[block] in ("two_speakers", "label.stale")


def test_a_refused_conversation_is_found_when_more_of_it_is_transcribed():
    spoken = irregular(38)
    evidence = replace(evidence_of(spoken, 300.0, segments=transcript(spoken[:2])), started_at_s=None)
    assert relabel(evidence, POLICY).changed == ()
    more = relabel(replace(evidence, segments=transcript(spoken)), POLICY)
    assert {segment.speaker for segment in more.segments} == {"SPEAKER_00", "SPEAKER_01"}


def of_a_recorder_that_hears_only_speech(seed):
    """Return 24 utterances of two people, and the evidence: a chunk each, with seconds between that were not sent."""
    draw, spoken, chunks, at_s = random.Random(seed), [], [], 2.0
    for number in range(24):
        length_s = draw.uniform(2.5, 7.0)
        spoken.append(("AB"[number % 2], at_s, at_s + length_s))
        chunks.append(ChunkInfo(f"c{number:03d}", number, number, T0 + at_s - 0.3, length_s + 0.6))
        at_s += length_s + draw.uniform(3.5, 12.0)
    plans = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    jobs = tuple(diarize(chunks, plan, spoken) for plan in plans)
    segments = transcript(spoken, "SPEAKER_04")
    return spoken, ConversationEvidence("c1", tuple(chunks), jobs, started_at_s=T0, segments=segments)


def say_it_was_later(evidence, places, late_s):
    chunks = [
        replace(chunk, captured_at_s=chunk.captured_at_s + late_s) if place in places else chunk
        for place, chunk in enumerate(evidence.chunks)
    ]
    return replace(evidence, chunks=tuple(chunks))


def labelled(result, spoken):
    """Return (lines that were given a number, how many of them stand with the other person's)."""
    left = {segment_id for segment_id, _ in result.left_alone}
    given = [(segment.speaker, spoken[int(segment.id[1:])][0]) for segment in result.segments if segment.id not in left]
    names = {number: [name for other, name in given if other == number] for number, _ in given}
    return len(given), sum(len(of_one) - max(map(of_one.count, "AB")) for of_one in names.values())


@pytest.mark.parametrize("late_s", [0.0, 20.0], ids=["times right", "started_at 20 s off"])
@pytest.mark.parametrize("seed", range(4))
def test_utterances_too_short_to_find_their_place_alone_find_it_together(seed, late_s):
    spoken, evidence = of_a_recorder_that_hears_only_speech(seed)
    count, wrong = labelled(relabel(replace(evidence, started_at_s=T0 - late_s), POLICY), spoken)
    assert (count >= 20, wrong) == (True, 0)


@pytest.mark.parametrize("late_s", [-9.0, 2.0, 9.0, 40.0])
@pytest.mark.parametrize("seed", range(4))
def test_an_utterance_whose_own_time_is_wrong_takes_no_place_among_the_others(seed, late_s):
    spoken, evidence = of_a_recorder_that_hears_only_speech(seed)
    assert labelled(relabel(say_it_was_later(evidence, {11}, late_s), POLICY), spoken)[1] == 0


@pytest.mark.parametrize("seed", range(4))
def test_where_many_times_are_wrong_no_utterance_has_the_place_of_another(seed):
    spoken, evidence = of_a_recorder_that_hears_only_speech(seed)
    assert labelled(relabel(say_it_was_later(evidence, range(0, 24, 3), 5.0), POLICY), spoken)[1] == 0
