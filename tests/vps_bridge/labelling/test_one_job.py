"""A completed conversation that is one job: its engine's answer stands, however short anybody speaks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vps_bridge.labelling.test_relabel import DIALOGUE, POLICY, chunks_of, diarize, evidence_of, transcript
from vps_bridge.labelling.relabel import ConversationEvidence, relabel
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

SPOKEN = [("A", 0.2, 1.1), ("B", 1.2, 1.9)]


def clip_of(spoken, *, length_s=2.0, final=True, segments=()):
    chunks = chunks_of(length_s, chunk_s=1.0)
    (plan,) = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    job = diarize(chunks, plan, spoken)
    job = replace(job, speakers=tuple(voice.model_copy(update={"embedding": None}) for voice in job.speakers))
    started_at_s = chunks[0].captured_at_s
    return ConversationEvidence("c1", tuple(chunks), (job,), segments, started_at_s=started_at_s, is_final=final)


def test_a_clip_with_less_speech_than_makes_a_voice_has_its_speakers():
    """Two seconds are too little to place them in a transcript for certain: its labels stay."""
    result = relabel(clip_of(SPOKEN, segments=transcript(SPOKEN)), POLICY)
    assert result.changed == ()
    assert result.warnings == ("clock.unverified: speech and transcript fit each other at no offset clearly enough",)
    assert [turn.speaker_id for turn in relabel(clip_of(SPOKEN), POLICY).turns] == [0, 1]


def test_a_speaker_whom_only_the_turns_name_counts():
    evidence = clip_of(SPOKEN)
    assert relabel(replace(evidence, jobs=(replace(evidence.jobs[0], speakers=()),)), POLICY).speakers == 2


@pytest.mark.parametrize("speaker", ["SPEAKER_00", "SPEAKER_04", None])
def test_before_it_is_final_more_audio_may_come_and_nobody_is_named(speaker):
    result = relabel(clip_of(SPOKEN, final=False, segments=transcript(SPOKEN, speaker)), POLICY)
    assert (result.speakers, result.changed) == (0, ())


def test_where_other_audio_gave_no_result_nobody_is_named():
    evidence = clip_of(SPOKEN, segments=transcript(SPOKEN))
    lost = replace(evidence.chunks[0], chunk_id="lost", arrival=99, sequence=99, captured_at_s=None)
    assert relabel(replace(evidence, chunks=(*evidence.chunks, lost)), POLICY).speakers == 0


def test_a_longer_conversation_is_labelled_as_before_once_it_is_final():
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE))
    assert relabel(replace(evidence, is_final=True), POLICY) == relabel(evidence, POLICY)
