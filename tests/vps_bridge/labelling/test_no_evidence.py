"""No evidence, no change: what a transcript came with stays where no voice is found, and no input ends in an error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.vps_bridge.labelling.test_relabel import DIALOGUE, POLICY, evidence_of, transcript
from vps_bridge.labelling.relabel import relabel


def without_voices(evidence):
    """The same jobs, of which no speaker has enough clean speech for an embedding."""
    jobs = tuple(
        replace(
            job, speakers=tuple(v.model_copy(update={"embedding": None, "clean_speech_s": 0.1}) for v in job.speakers)
        )
        for job in evidence.jobs
    )
    return replace(evidence, jobs=jobs, num_speakers=None)


@pytest.mark.parametrize("speaker", ["SPEAKER_00", "SPEAKER_07", None])
def test_where_no_voice_is_found_every_label_stays(speaker):
    evidence = evidence_of(DIALOGUE, segments=transcript(DIALOGUE, speaker))
    result = relabel(without_voices(evidence), POLICY)
    assert result.speakers == 0
    assert result.changed == ()
    assert {label.speaker for label in result.segments} == {speaker}


@pytest.mark.parametrize("speaker", ["SPEAKER_00", "SPEAKER_07"])
def test_where_voices_speak_only_in_segments_of_people_every_other_label_stays(speaker):
    """The first minutes are diarized, and people labelled them; all other segments are of what no job has done yet."""
    evidence = evidence_of(DIALOGUE)
    by_people = transcript(DIALOGUE, None, person_id="p", label_source="manual")[:12]
    later = transcript(DIALOGUE, speaker)[30:]
    result = relabel(replace(evidence, jobs=evidence.jobs[:1], segments=by_people + later), POLICY)
    assert result.speakers > 0
    assert result.changed == ()
    assert {reason for _, reason in result.left_alone} in ({"human", "no_audio"}, {"human", "clock.unverified"})


def test_embeddings_of_another_length_under_one_name_are_another_model():
    evidence = evidence_of(DIALOGUE)
    first, *rest = evidence.jobs
    longer = tuple(voice.model_copy(update={"embedding": np.ones(48, "<f4").tobytes()}) for voice in first.speakers)
    result = relabel(replace(evidence, jobs=(replace(first, speakers=longer), *rest)), POLICY)
    assert "embedding.mixed_models" in result.warnings
    assert result.speakers >= 3
