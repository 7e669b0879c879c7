"""Linking local speakers into voices: by shared seconds, by recorded embeddings, and by people's labels."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vps_bridge.labelling.link import MAX_LINKED, LinkingRules, LocalSpeakerEvidence, SpeakerLink, link_speakers
from vps_bridge.labelling.local_speaker import LocalSpeaker

RULES = LinkingRules()
SPACE = "wespeaker@1"
GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden"
needs_golden = pytest.mark.skipif(
    not GOLDEN.exists(), reason="the recorded pipeline stages (shared/golden beside the repository) are not here"
)
PEOPLE = np.linalg.qr(np.random.default_rng(3).normal(size=(64, 6)))[0].T


def speaker(name, turns, person=None, *, clean_s=None, noise=0.0, seed=0, space=SPACE):
    job_id, label = name.split("/")
    embedding = None
    if person is not None:
        embedding = (PEOPLE[person] + noise * np.random.default_rng(seed).normal(size=64)).astype(np.float32)
    speech_s = sum(end_s - start_s for start_s, end_s in turns)
    return LocalSpeakerEvidence(
        LocalSpeaker(job_id, label), tuple(turns), speech_s if clean_s is None else clean_s, embedding, space
    )


def linked(speakers, **hints):
    groups = link_speakers(speakers, RULES, **hints)
    return sorted(sorted(f"{member.job_id}/{member.speaker}" for member in group) for group in groups)


def test_similar_speakers_of_two_jobs_are_one_voice():
    assert linked([speaker("j1/A", [(0, 10)], 0), speaker("j2/B", [(60, 70)], 0), speaker("j2/A", [(70, 80)], 1)]) == [
        ["j1/A", "j2/B"],
        ["j2/A"],
    ]


def test_two_speakers_of_one_job_are_never_joined():
    assert len(linked([speaker("j1/A", [(0, 10)], 0), speaker("j1/B", [(10, 20)], 0)])) == 2


def test_agreement_on_shared_seconds_never_joins_speakers_that_sound_different():
    assert linked([speaker("j1/A", [(0, 10)], 0), speaker("j2/A", [(5, 15)], 1)]) == [["j1/A"], ["j2/A"]]


def test_agreement_on_shared_seconds_joins_speakers_whose_embeddings_cannot_be_compared():
    speakers = [speaker("j1/A", [(0, 10)], 0), speaker("j2/A", [(5, 15)], 1, space="wespeaker@2")]
    assert linked(speakers) == [["j1/A", "j2/A"]]


def test_a_short_speaker_that_two_voices_agree_with_does_not_make_them_one():
    long = [speaker("j1/A", [(0, 60)], 0), speaker("j3/A", [(57.5, 110)], 1)]
    assert linked([*long, speaker("j2/B", [(57, 60)], 2, clean_s=2.9)]) == [["j1/A", "j2/B"], ["j3/A"]]


def test_disagreement_on_shared_seconds_keeps_similar_speakers_apart():
    speakers = [
        speaker("j1/A", [(0, 53)], 0),
        speaker("j1/B", [(53, 60)], 1),
        speaker("j2/X", [(50, 53)], 2),
        speaker("j2/Y", [(53, 80)], 0),
    ]
    assert linked(speakers) == [["j1/A"], ["j1/B"], ["j2/X"], ["j2/Y"]]


def test_less_than_two_shared_seconds_say_nothing():
    assert len(linked([speaker("j1/A", [(0, 10)], 0), speaker("j2/A", [(8.5, 18)], 1)])) == 2


def test_short_speech_never_makes_a_voice():
    assert linked([speaker("j1/A", [(0, 10)], 0), speaker("j2/B", [(60, 62)], 1)]) == [["j1/A"]]


def test_overlapped_speech_never_makes_a_voice():
    assert linked([speaker("j1/A", [(0, 30)], 0, clean_s=1.0)]) == []


def test_short_speech_joins_a_voice_by_shared_seconds():
    assert linked([speaker("j1/A", [(40, 60)], 0), speaker("j2/B", [(57.5, 60)], 1)]) == [["j1/A", "j2/B"]]


def test_short_speech_never_changes_the_embedding_of_a_voice():
    long = [speaker("j1/A", [(0, 20)], 0), speaker("j3/A", [(120, 140)], 0)]
    short = speaker("j2/B", [(17.5, 20)], 1)
    other = speaker("j4/B", [(180, 200)], 1)
    assert linked([*long, short, other]) == [["j1/A", "j2/B", "j3/A"], ["j4/B"]]


def test_embeddings_of_two_models_are_never_compared():
    assert len(linked([speaker("j1/A", [(0, 9)], 0), speaker("j2/A", [(60, 69)], 0, space="wespeaker@2")])) == 2


def test_without_embeddings_only_a_single_job_has_voices():
    assert linked([speaker("j1/A", [(0, 9)]), speaker("j1/B", [(9, 18)])]) == [["j1/A"], ["j1/B"]]
    assert linked([speaker("j1/A", [(0, 9)]), speaker("j2/A", [(60, 69)])]) == []


def test_a_persons_links_override_all_measurement():
    a, b, c = (LocalSpeaker(job, "A") for job in ("j1", "j2", "j3"))
    speakers = [speaker("j1/A", [(0, 9)], 0), speaker("j2/A", [(60, 69)], 1), speaker("j3/A", [(120, 129)], 0)]
    links = [SpeakerLink("must", a, b), SpeakerLink("cannot", a, c)]
    assert linked(speakers, links=links) == [["j1/A", "j2/A"], ["j3/A"]]
    same_job = [speaker("j1/A", [(0, 9)], 0), speaker("j1/B", [(9, 18)], 1)]
    assert len(linked(same_job, links=[SpeakerLink("must", a, LocalSpeaker("j1", "B"))])) == 1


def test_of_two_contradicting_links_cannot_wins():
    a, b = LocalSpeaker("j1", "A"), LocalSpeaker("j2", "A")
    speakers = [speaker("j1/A", [(0, 9)], 0), speaker("j2/A", [(60, 69)], 0)]
    assert len(linked(speakers, links=[SpeakerLink("must", a, b), SpeakerLink("cannot", b, a)])) == 2


def test_a_link_to_a_job_that_is_gone_is_ignored():
    gone = SpeakerLink("must", LocalSpeaker("old", "A"), LocalSpeaker("j1", "A"))
    assert linked([speaker("j1/A", [(0, 9)], 0)], links=[gone]) == [["j1/A"]]


def test_hints_bound_the_number_of_voices():
    speakers = [speaker(f"j{n}/A", [(60 * n, 60 * n + 9)], n % 3) for n in range(6)]
    assert len(linked(speakers)) == 3
    assert len(linked(speakers, max_speakers=2)) == 2
    assert len(linked(speakers, min_speakers=5)) == 5
    one_job = [speaker(f"j/{n}", [(10 * n, 10 * n + 9)], n) for n in range(3)]
    assert len(linked(one_job, max_speakers=1)) == 3


def test_more_local_speakers_than_are_compared_all_find_their_voice():
    random_numbers = np.random.default_rng(1)
    speakers = [
        replace(
            speaker(f"j{job}/{person}", [(90.0 * job + 9 * person, 90.0 * job + 9 * person + 8)], person % 6),
            clean_speech_s=float(random_numbers.uniform(3, 9)),
        )
        for job in range(MAX_LINKED // 6 + 60)
        for person in range(6)
    ]
    stranger = replace(speaker("j1/X", [(190, 193)]), embedding=np.ones(64, dtype=np.float32), embedding_space=SPACE)
    groups = link_speakers([*speakers, replace(stranger, clean_speech_s=3.0)], RULES)
    assert sorted(len(group) for group in groups) == [MAX_LINKED // 6 + 60] * 6


def test_a_job_with_a_hundred_loud_speakers_crowds_out_nobody(monkeypatch):
    monkeypatch.setattr("vps_bridge.labelling.link.MAX_LINKED", 124)
    random_numbers = np.random.default_rng(2)
    crowd = [
        replace(
            speaker(f"crowd/{person:03d}", [(5_000.0 + 2 * person, 5_001.0 + 2 * person)]),
            clean_speech_s=900.0,
            embedding=random_numbers.normal(size=64).astype(np.float32),
            embedding_space=SPACE,
        )
        for person in range(100)
    ]
    meeting = [
        speaker(f"j{job:02d}/{person}", [(90.0 * job + 9 * person, 90.0 * job + 9 * person + 8)], person)
        for job in range(30)
        for person in range(4)
    ]
    voices = link_speakers([*crowd, *meeting], RULES)
    assert sorted(len(voice) for voice in voices if all(m.job_id != "crowd" for m in voice)) == [30] * 4


random_voices = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 5), st.floats(0.5, 30), st.floats(0, 0.15), st.booleans()),
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(drawn=random_voices, seed=st.integers(0, 9))
def test_the_partition_never_depends_on_the_order_of_arrival(drawn, seed):
    speakers = {}
    for index, (job, person, length_s, noise, silent) in enumerate(drawn):
        start_s = job * 50.0 + person * 9.0
        made = speaker(
            f"j{job}/{person}", [(start_s, start_s + length_s)], None if silent else person, noise=noise, seed=index
        )
        speakers[made.id] = made
    ordered = list(speakers.values())
    groups = link_speakers(ordered, RULES)
    for group in groups:
        assert len({member.job_id for member in group}) == len(group)
    assert len({member for group in groups for member in group}) == sum(map(len, groups))
    shuffled = random.Random(seed).sample(ordered, len(ordered))
    assert link_speakers(shuffled, RULES) == groups


def recorded_jobs(name, length_s, overlap_s):
    """Cut a real recording into jobs, with pyannote's own result as labels and its embeddings averaged by job."""
    folder = GOLDEN / name
    embeddings = np.load(folder / "raw_embeddings.npz")["embeddings"]
    clusters = np.load(folder / "clustering.npz")["hard_clusters"]
    active = np.load(folder / "segmentations.npz")["segmentations"] > 0
    rows = [line.split() for line in (folder / "reference.rttm").read_text().splitlines()]
    end_s = max(float(row[3]) + float(row[4]) for row in rows)
    grid = np.zeros((3, int(end_s * 100) + 1), dtype=bool)
    for row in rows:
        grid[int(row[7][-2:]), int(float(row[3]) * 100) : int((float(row[3]) + float(row[4])) * 100)] = True
    solo = grid & (grid.sum(axis=0) == 1)
    usable = np.mean(active & (active.sum(axis=2, keepdims=True) == 1), axis=1) >= 0.2
    speakers, truth = [], {}
    for job, start_s in enumerate(np.arange(0.0, end_s, length_s)):
        first_s, last_s = max(0.0, start_s - overlap_s), min(end_s, start_s + length_s)
        windows = slice(int(np.ceil(first_s)), max(int(np.ceil(first_s)), int(last_s - 9)))
        for cluster in range(3):
            spoken = np.concatenate([[0], solo[cluster, int(first_s * 100) : int(last_s * 100)], [0]]).astype(int)
            edges = first_s + np.flatnonzero(np.diff(spoken)) / 100
            if not len(edges):
                continue
            chosen = embeddings[windows][(clusters[windows] == cluster) & usable[windows]]
            local = LocalSpeaker(f"j{job:02d}", f"SPEAKER_{(cluster + job) % 3:02d}")
            truth[local] = cluster
            speakers.append(
                LocalSpeakerEvidence(
                    local,
                    tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)),
                    float(spoken.sum()) / 100,
                    chosen.mean(axis=0).astype(np.float32) if len(chosen) else None,
                    "wespeaker@golden",
                )
            )
    return speakers, truth


@needs_golden
@pytest.mark.shared
@pytest.mark.parametrize("overlap", [0.0, 10.0])
@pytest.mark.parametrize("length_s", [60.0, 90.0, 120.0])
@pytest.mark.parametrize("name", ["06_long_recording", "01_dialogue"])
def test_a_recording_cut_into_jobs_is_linked_back_to_its_two_voices(name, length_s, overlap):
    speakers, truth = recorded_jobs(name, length_s, overlap)
    groups = link_speakers(speakers, RULES)
    seconds = {local.id: sum(end_s - start_s for start_s, end_s in local.turns) for local in speakers}
    largest = sorted(groups, key=lambda group: -sum(seconds[member] for member in group))[:2]
    assert [len({truth[member] for member in group}) for group in largest] == [1, 1]
    assert len({truth[group[0]] for group in largest}) == 2
    linked_s = sum(seconds[member] for group in largest for member in group)
    assert linked_s >= 0.96 * sum(seconds.values())


@needs_golden
@pytest.mark.shared
@pytest.mark.parametrize("mixed_job", [f"j{number:02d}" for number in range(1, 11)])
def test_a_local_speaker_that_mixes_two_people_does_not_make_them_one_voice(mixed_job):
    """Of one job both voices come under one label, as engines do; it agrees with either on the shared seconds."""
    speakers, truth = recorded_jobs("06_long_recording", 90.0, 10.0)
    two = [local for local in speakers if local.id.job_id == mixed_job and local.embedding is not None]
    clean_s = [local.clean_speech_s for local in two]
    mixed = replace(
        two[0],
        turns=tuple(sorted(turn for local in two for turn in local.turns)),
        clean_speech_s=sum(clean_s),
        embedding=np.average([local.embedding for local in two], axis=0, weights=clean_s).astype(np.float32),
    )
    groups = link_speakers([*(local for local in speakers if local.id.job_id != mixed_job), mixed], RULES)
    assert [len({truth[member] for member in group if member != mixed.id}) for group in groups] == [1, 1]


@needs_golden
@pytest.mark.shared
def test_local_speakers_with_a_job_each_are_linked_back_to_their_voices():
    """Every local speaker gets a job of its own, so that only embeddings can tell them apart."""
    speakers, truth = recorded_jobs("06_long_recording", 90.0, 0.0)
    alone = [replace(local, id=LocalSpeaker(f"{local.id.job_id}-{local.id.speaker}", "A")) for local in speakers]
    truth = {LocalSpeaker(f"{local.job_id}-{local.speaker}", "A"): cluster for local, cluster in truth.items()}
    groups = link_speakers(alone, RULES)
    assert [len({truth[member] for member in group}) for group in groups] == [1, 1]
