"""Exact and stretch are compared on one recording: error seconds, changed seconds and embeddings."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pyannote.metrics", reason="could not import pyannote.metrics: install the agent extra")

from mac_agent.engines.comparison import compare
from mac_agent.engines.engine import Diarization, SpeakerEvidence, Turn
from mac_agent.weights.verdict import Comparison


def answer(*turns: tuple[float, float, str], **embeddings: list[float] | None) -> Diarization:
    spoken = tuple(Turn(*turn) for turn in turns)
    speakers = sorted({turn.speaker for turn in spoken})
    vectors = {name: None if row is None else np.array(row, dtype=np.float32) for name, row in embeddings.items()}
    evidence = tuple(SpeakerEvidence(name, 5.0, vectors.get(name)) for name in speakers)
    return Diarization(spoken, spoken, evidence, sum(turn.end_s - turn.start_s for turn in spoken), {}, ())


def compared(exact: Diarization, stretch: Diarization) -> Comparison:
    return compare("a", 20.0, exact, stretch, exact_s=6.0, stretch_s=2.0)


def test_the_same_turns_under_other_labels_have_no_error():
    exact = answer((0, 4, "a"), (3, 8, "b"), a=[1, 0], b=[0, 1])
    found = compared(exact, answer((0, 4, "x"), (3, 8, "y"), x=[1, 0], y=[0.6, 0.8]))
    assert (found.speech_s, found.error_s, found.changed_s, found.lost_speakers) == (9.0, 0.0, 0.0, 0)
    assert found.cosines == pytest.approx((1.0, 0.8))
    assert found.speed_up == 3.0


def test_missed_false_and_confused_seconds_each_count_once_in_the_error():
    exact = answer((0, 10, "a"), (10, 16, "b"))
    found = compared(exact, answer((0, 9, "a"), (10, 12, "a"), (12, 16, "b"), (17, 17.5, "b")))
    assert found.error_s == pytest.approx(1.0 + 2.0 + 0.5)  # 9-10 missed, 10-12 confused, 17-17.5 false
    assert found.changed_s == pytest.approx(1.0 + 4.0 + 0.5)
    assert found.der == pytest.approx(3.5 / 16)


def test_a_speaker_that_only_one_mode_found_is_lost_and_one_without_embedding_is_not():
    exact = answer((0, 10, "a"), (10, 16, "b"), a=[1, 0], b=[0, 1])
    merged = answer((0, 16, "x"), x=[1, 0])
    assert compared(exact, merged).lost_speakers == compared(merged, exact).lost_speakers == 1
    assert compared(answer((0, 10, "a"), (10, 16, "b"), a=[1, 0], b=None), merged).lost_speakers == 0


def test_silence_equals_silence_and_speech_where_exact_found_none_is_an_infinite_error():
    silent = answer()
    assert (compared(silent, silent).der, compared(silent, silent).cosines) == (0.0, ())
    assert compared(silent, answer((0, 3, "a"))).der == float("inf")
