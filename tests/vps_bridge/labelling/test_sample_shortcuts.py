"""What clustering and taking apart leave out changes nothing: the same as the plain way, on drawn conversations."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from schemas.turns import SPEECH_STEP_S, SpeakerTurn
from vps_bridge.labelling import cluster, take_apart
from vps_bridge.labelling.sample_set import SampleSet

SEEDS = st.integers(0, 2**32 - 1)


def draw_samples(draw: np.random.Generator) -> SampleSet:
    """Return samples of some jobs: one to three of a window, some of them zeros, in any order."""
    windows = draw.integers(1, 30)
    sizes = draw.integers(1, 4, windows)
    window = np.repeat(np.arange(windows), sizes)
    count = len(window)
    embeddings = draw.normal(size=(count, 4)).astype(np.float32)
    embeddings[draw.random(count) < 0.1] = 0.0
    order = draw.permutation(count) if draw.random() < 0.3 else np.arange(count)
    return SampleSet(
        job=(window // 8)[order],
        start_s=(window % 8).astype(float)[order],
        clean_s=np.full(count, 5.0),
        weight=np.ones(count),
        embeddings=embeddings[order],
        plda=np.zeros((count, 2), dtype=np.float32),
        phi=np.ones(2),
    )


def choose_plainly(samples: SampleSet, likeness: np.ndarray) -> np.ndarray:
    """Solve the assignment of every window."""
    voices = np.full(len(samples), -1)
    for key in sorted(set(zip(samples.job.tolist(), samples.start_s.tolist(), strict=True))):
        rows = np.flatnonzero((samples.job == key[0]) & (samples.start_s == key[1]))
        if len(rows) == 1:
            voices[rows] = likeness[rows].argmax(axis=1)
        else:
            chosen, voice = linear_sum_assignment(likeness[rows], maximize=True)
            voices[rows[chosen]] = voice
    return voices


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 5), st.booleans())
def test_windows_that_need_no_assignment_get_what_one_would_give_them(seed, n_voices, has_ties):
    draw = np.random.default_rng(seed)
    samples = draw_samples(draw)
    likeness = (samples.embeddings @ draw.normal(size=(4, n_voices))).astype(np.float64)
    likeness = np.round(likeness) if has_ties else likeness
    assert cluster._choose(samples, likeness).tolist() == choose_plainly(samples, likeness).tolist()


def draw_turns(draw: np.random.Generator, length_s: float) -> tuple[SpeakerTurn, ...]:
    starts_s = np.sort(draw.uniform(0, length_s, draw.integers(1, 25)))
    return tuple(
        SpeakerTurn(start_s=start_s, end_s=start_s + draw.exponential(3.0), speaker=str(draw.choice(["A", "B", "C"])))
        for start_s in starts_s.tolist()
    )


def cut_plainly(turns, voice_at, parts, label_of):
    """Go through every turn step by step; who is no mixed speaker keeps the turns as they are."""
    cut = []
    for turn in turns:
        voices = list(parts.get(turn.speaker, {}))
        first = int(turn.start_s / SPEECH_STEP_S + 1e-6)
        last = max(first + 1, int(turn.end_s / SPEECH_STEP_S + 1e-6))
        heard = [voice_at[step] if voice_at[step] in voices else voices[0] for step in range(first, last) if voices]
        runs = [(voice, len(list(steps))) for voice, steps in groupby(heard)] or [(None, last - first)]
        step, start_s = first, turn.start_s
        for place, (voice, length) in enumerate(runs, 1):
            step += length
            end_s = turn.end_s if place == len(runs) else step * SPEECH_STEP_S
            label = turn.speaker if voice is None else label_of[turn.speaker, int(voice)]
            cut.append((start_s, end_s, label))
            start_s = end_s
    return cut


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_turns_are_cut_as_they_are_step_by_step(seed):
    draw = np.random.default_rng(seed)
    turns = draw_turns(draw, 40.0)
    n_steps = int(max(turn.end_s for turn in turns) / SPEECH_STEP_S + 1e-6) + 1
    voice_at = np.repeat(draw.integers(-1, 4, n_steps // 7 + 1), 7)[:n_steps]
    parts = take_apart._find_parts(turns, voice_at)
    label_of = take_apart._name_parts(parts, {turn.speaker for turn in turns})
    found = take_apart._cut(turns, voice_at, parts, label_of)
    assert [(turn.start_s, turn.end_s, turn.speaker) for turn in found] == cut_plainly(turns, voice_at, parts, label_of)


def busy_plainly(turns, n_steps):
    busy = np.zeros(n_steps, dtype=int)
    for turn in turns:
        first, last = (int(at_s / SPEECH_STEP_S + 1e-6) for at_s in (turn.start_s, turn.end_s))
        busy[first : last + 1] += 1
    return busy


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_how_many_speak_in_a_step_is_counted_as_turn_by_turn(seed):
    turns = draw_turns(np.random.default_rng(seed), 40.0)
    n_steps = int(max(turn.end_s for turn in turns) / SPEECH_STEP_S + 1e-6) + 1
    assert take_apart._count_busy(turns, n_steps).tolist() == busy_plainly(turns, n_steps).tolist()
