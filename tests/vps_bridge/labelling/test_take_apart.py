"""Voice samples of all jobs, clustered together, take apart the speakers that a job mixed (recorded embeddings)."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from schemas.turns import SpeakerTurn
from tests.vps_bridge.labelling.golden_samples import GOLDEN, Recorded
from tests.vps_bridge.labelling.settled_jobs import settled
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.link import SpeakerLink
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.relabel import Relabelling, RelabelPolicy, relabel
from vps_bridge.labelling.sample_set import SampleRules
from vps_bridge.labelling.take_apart import take_apart

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not GOLDEN.exists(), reason="shared/golden beside the repository is not here"),
]


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded("06_long_recording")


@pytest.fixture(scope="module")
def mixed(recorded: Recorded) -> ConversationEvidence:
    return recorded.conversation(90)


def confused(found: Relabelling, recorded: Recorded) -> float:
    """Return the share of the speech of one person alone that is under another's number, after the best renaming."""
    n_steps = 10 * recorded.end_s
    truth, labels = np.full(n_steps, -1), np.full(n_steps, -1)
    names = sorted({who for *_, who in recorded.reference})
    for start_s, end_s, who in recorded.reference:
        steps = slice(round(10 * start_s), round(10 * end_s))
        truth[steps] = np.where(truth[steps] == -1, names.index(who), -2)
    for turn in found.turns:
        labels[round(10 * turn.start_s) : round(10 * turn.end_s)] = turn.speaker_id
    both = (truth >= 0) & (labels >= 0)
    right = sum(np.bincount(truth[both & (labels == number)]).max() for number in np.unique(labels[both]))
    return 1 - right / both.sum()


def without_samples(evidence: ConversationEvidence) -> ConversationEvidence:
    return replace(evidence, jobs=tuple(replace(job, voice_samples=None) for job in evidence.jobs))


@pytest.mark.parametrize("length_s", [60, 120])
def test_jobs_that_gave_both_voices_one_label_are_taken_apart(recorded: Recorded, length_s: int) -> None:
    mixed = recorded.conversation(length_s)
    found = relabel(mixed, RelabelPolicy())
    assert confused(found, recorded) < 0.02
    assert found.speakers in (2, 3)  # the third speaks for 4 s in 16 minutes
    assert confused(relabel(without_samples(mixed), RelabelPolicy()), recorded) > 0.2


def test_speakers_that_no_job_mixed_keep_their_turns(recorded: Recorded) -> None:
    clear = recorded.conversation(90, mixed=False)
    apart = take_apart(clear.jobs, SampleRules())
    seconds = moved = 0.0
    for before, after in zip(clear.jobs, apart.jobs, strict=True):
        kept = {(turn.start_s, turn.end_s, turn.speaker) for turn in after.exclusive_turns}
        for turn in before.exclusive_turns:
            seconds += turn.end_s - turn.start_s
            moved += 0.0 if (turn.start_s, turn.end_s, turn.speaker) in kept else turn.end_s - turn.start_s
    assert moved < 0.05 * seconds


def test_taking_apart_moves_no_second_and_loses_none(mixed: ConversationEvidence) -> None:
    for before, after in zip(mixed.jobs, take_apart(mixed.jobs, SampleRules()).jobs, strict=True):
        for name in ("turns", "exclusive_turns"):
            old, new = ([turn.end_s - turn.start_s for turn in getattr(job, name)] for job in (before, after))
            assert sum(new) == pytest.approx(sum(old))
        assert {turn.speaker for turn in after.turns} <= {voice.speaker for voice in after.speakers}


def test_the_order_of_jobs_does_not_matter(mixed: ConversationEvidence) -> None:
    found = relabel(mixed, RelabelPolicy())
    shuffled = replace(mixed, jobs=tuple(random.Random(1).sample(mixed.jobs, len(mixed.jobs))))
    assert relabel(shuffled, RelabelPolicy()) == found


def test_more_samples_than_are_clustered_at_once_are_merged_and_give_the_same_voices(
    mixed: ConversationEvidence, recorded: Recorded
) -> None:
    apart = take_apart(mixed.jobs, replace(SampleRules(), max_clustered=150))
    few = relabel(without_samples(replace(mixed, jobs=apart.jobs)), RelabelPolicy())
    assert confused(few, recorded) < 0.04


def test_jobs_of_an_older_agent_are_linked_beside_those_with_samples(
    recorded: Recorded, mixed: ConversationEvidence
) -> None:
    older = [replace(job, voice_samples=None) for job in recorded.conversation(90, mixed=False).jobs[::3]]
    replaced = {job.job_id: job for job in older}
    jobs = tuple(replaced.get(job.job_id, job) for job in mixed.jobs)
    assert confused(relabel(replace(mixed, jobs=jobs), RelabelPolicy()), recorded) < 0.03


def test_what_samples_found_stays_when_they_are_not_kept_any_more(
    mixed: ConversationEvidence, recorded: Recorded
) -> None:
    later = replace(mixed, jobs=settled(mixed.jobs))
    assert confused(relabel(later, RelabelPolicy()), recorded) < 0.02


def test_parts_get_labels_that_no_speaker_of_the_job_has(mixed: ConversationEvidence) -> None:
    """The longest label a message allows, and one that looks like a part's."""
    longest = "x" * 64

    def renamed(label: str) -> ConversationEvidence:
        def under(turns: tuple[SpeakerTurn, ...]) -> tuple[SpeakerTurn, ...]:
            first = turns[0].model_copy(update={"speaker": f"{label[:56]} (2)"})
            return (first, *(turn.model_copy(update={"speaker": label}) for turn in turns[1:]))

        jobs = (
            replace(job, turns=under(job.turns), exclusive_turns=under(job.exclusive_turns), speakers=())
            for job in mixed.jobs
        )
        return replace(mixed, jobs=tuple(jobs))

    for label in (longest, "SPEAKER_00"):
        for job in take_apart(renamed(label).jobs, SampleRules()).jobs:
            labels = [turn.speaker for turn in job.exclusive_turns]
            assert labels.count(f"{label[:56]} (2)") == 1
            assert len(set(labels)) >= 2


def test_a_conversation_of_one_job_is_as_its_engine_said(mixed: ConversationEvidence) -> None:
    assert take_apart(mixed.jobs[:1], SampleRules()).jobs == mixed.jobs[:1]


def test_a_person_overrides_what_clustering_found(mixed: ConversationEvidence) -> None:
    apart = take_apart(mixed.jobs, SampleRules())
    by_voice: dict[str, list[LocalSpeaker]] = {}
    for member, voice in apart.voice_of.items():
        by_voice.setdefault(voice, []).append(member)
    largest, second = sorted(by_voice.values(), key=len)[-1:-3:-1]
    must = replace(mixed, links=(SpeakerLink("must", largest[0], second[0]),))
    assert relabel(must, RelabelPolicy()).speakers == relabel(mixed, RelabelPolicy()).speakers - 1
