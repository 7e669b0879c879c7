"""Very many local speakers: only some are compared each with each, and the voices are the same."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vps_bridge.labelling.link import LinkingRules, LocalSpeaker, LocalSpeakerEvidence, SpeakerLink, link_speakers
from vps_bridge.labelling.link_many import link_many_speakers

RULES = LinkingRules()
PEOPLE = np.linalg.qr(np.random.default_rng(5).normal(size=(64, 8)))[0].T


def heard(job, person, *, clean_s=20.0, noise=0.03, at_s=0.0):
    seed = np.random.default_rng([job, person])
    vector = (PEOPLE[person % 8] if person < 8 else seed.normal(size=64)) + seed.normal(scale=noise, size=64)
    return LocalSpeakerEvidence(
        LocalSpeaker(f"job{job:03d}", f"S{person:03d}"),
        ((at_s + job * 100.0 + person, at_s + job * 100.0 + person + 0.5),),
        clean_s,
        vector.astype("<f4"),
        "wespeaker@1",
    )


def grouped(partition):
    return {frozenset(voice) for voice in partition}


MEETING = [heard(job, person, clean_s=5.0 + person) for job in range(30) for person in range(4)]


@pytest.mark.parametrize("most", [120, 100, 60, 31])
def test_the_voices_are_the_same_however_many_are_compared(most):
    expected = grouped(link_speakers(MEETING, RULES))
    assert len(expected) == 4
    assert grouped(link_many_speakers(MEETING, RULES, max_linked=most)) == expected


def test_a_job_with_a_hundred_loud_speakers_crowds_out_nobody_of_other_jobs():
    crowd = [heard(40, person, clean_s=900.0) for person in range(8, 108)]
    voices = link_many_speakers([*MEETING, *crowd], RULES, max_linked=100)
    of_meeting = {frozenset(voice) for voice in voices if all(member.job_id != "job040" for member in voice)}
    assert of_meeting == grouped(link_speakers(MEETING, RULES))


def test_who_sounds_like_nobody_has_a_voice_and_who_speaks_too_little_none():
    alone, quiet = heard(50, 20, clean_s=4.0), heard(51, 0, clean_s=1.0)
    voices = link_many_speakers([*MEETING, alone, quiet], RULES, max_linked=60)
    assert (alone.id,) in voices
    assert all(quiet.id not in voice for voice in voices)


def test_a_hint_of_two_speakers_is_kept():
    assert len(link_many_speakers(MEETING, RULES, max_speakers=2, max_linked=60)) == 2


def test_whom_people_named_are_always_compared():
    quiet = heard(60, 0, clean_s=3.5)
    link = SpeakerLink("must", quiet.id, MEETING[3].id)  # a person says: who sounds like 0 there is 3
    voices = link_many_speakers([*MEETING, quiet], RULES, links=[link], max_linked=60)
    (voice,) = [voice for voice in voices if quiet.id in voice]
    assert MEETING[3].id in voice


@settings(max_examples=25, deadline=None)
@given(most=st.integers(1, 130), seed=st.integers(0, 10**6), jobs=st.integers(1, 20))
def test_nobody_is_in_two_voices_nor_two_of_a_job_in_one_in_whatever_order_they_come(most, seed, jobs):
    speakers = [heard(job, person, clean_s=2.0 + person) for job in range(jobs) for person in range(6)]
    voices = link_many_speakers(speakers, RULES, max_linked=most)
    members = [member for voice in voices for member in voice]
    assert len(members) == len(set(members))
    assert all(len({member.job_id for member in voice}) == len(voice) for voice in voices)
    mixed = random.Random(seed).sample(speakers, len(speakers))
    assert link_many_speakers(mixed, RULES, max_linked=most) == voices
