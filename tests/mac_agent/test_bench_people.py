"""The benchmark of recognising people counts what it says it counts."""

from __future__ import annotations

import numpy as np

from benchmarks.people.conversations import SpokenVoice
from benchmarks.people.copies import quiet, telephone
from benchmarks.people.pieces import Pieces
from benchmarks.people.tables import judge_conversation, judge_draws
from benchmarks.people.trials import Condition, Draw, Spoken, compare, conditions, draw_all
from benchmarks.recordings import SAMPLE_RATE_HZ, Recording
from mac_agent.threshold import NOBODY, Choice, Rate, count_errors
from vps_bridge.people.match import Print

SPACE = "3d-speaker/campplus@1/4"
AXES = np.eye(4, dtype=np.float32)


def spoken(vector: np.ndarray, clean_s: float = 30.0) -> Spoken:
    return Spoken(vector, clean_s)


def power_of(waveform: np.ndarray, pitch_hz: float) -> float:
    time_s = np.arange(len(waveform)) / SAMPLE_RATE_HZ
    return float(np.abs(np.mean(waveform * np.exp(-2j * np.pi * pitch_hz * time_s))))


def test_a_telephone_keeps_its_band_and_a_quiet_copy_its_sound():
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tones = 0.1 * np.sin(2 * np.pi * np.outer([60.0, 1000.0, 6000.0], time_s)).sum(axis=0)
    recording = Recording("tones", tones.astype(np.float32), ())
    heard = telephone(recording).waveform
    assert power_of(heard, 1000.0) > 0.04
    assert power_of(heard, 60.0) < 0.004
    assert power_of(heard, 6000.0) < 0.004
    assert 0.0004 < power_of(quiet(recording).waveform, 1000.0) < 0.0006


def test_prints_and_voices_of_a_draw_are_made_of_different_utterances():
    pieces = Pieces(
        vectors=np.eye(10, dtype=np.float32), weights=np.ones(10), clean_s=np.full(10, 3.0), utterance=np.arange(10)
    )
    people = {"clean": {"anna": pieces, "ben": pieces}}
    for draw in draw_all(people, Condition("clean", "clean", 30.0, 5.0)):
        for name, known in draw.prints.items():
            assert known.vector @ draw.voices[name].vector == 0.0
            assert (known.clean_s, draw.voices[name].clean_s) == (15.0, 6.0)


def test_every_pair_of_copies_that_is_compared_is_named_once():
    pairs = conditions(("clean", "hall", "telephone"))
    assert len(pairs) == len(set(pairs)) == 3 + 4
    assert ("hall", "clean") not in pairs


def test_known_voices_and_strangers_are_tallied():
    near = (AXES[0] + 0.3 * AXES[2]) / np.sqrt(np.float32(1.09))
    draw = Draw({"anna": spoken(AXES[0]), "ben": spoken(AXES[1])}, {"anna": spoken(near), "ben": spoken(AXES[3])})
    tally = judge_draws([draw], SPACE)
    assert dict(tally.known) == {"matched": 1, "nothing": 1}
    assert (tally.rejected, tally.wrong, tally.named) == (Rate(1, 2), Rate(0, 2), Rate(0, 2))
    trials = compare([draw], SPACE, [SpokenVoice("film", "", AXES[1], 30.0)])
    assert trials.speaker.tolist() == [0, 1, NOBODY]
    assert count_errors(trials, Choice(0.6, 0.1)).strangers_named == Rate(1, 3)


def test_a_conversation_is_judged_by_who_really_speaks():
    prints = [Print("anna", SPACE, AXES[0], 30.0), Print("ben", SPACE, AXES[1], 30.0)]
    voices = [SpokenVoice("talk", who, AXES[axis], 30.0) for axis, who in enumerate(["anna", "cleo", "dora"])]
    tally = judge_conversation(voices, prints, SPACE)
    assert dict(tally.known) == {"matched": 1}
    assert dict(tally.strangers) == {"named": 1, "nothing": 1}
