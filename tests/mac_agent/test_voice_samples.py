"""Voice samples in a result message: as many as there is room for, as exact as float16, and never a broken number."""

from __future__ import annotations

import numpy as np
import pytest

from mac_agent.engines.samples import SpeechSamples, sample_windows
from mac_agent.voice_samples import add_samples
from schemas.codec import decode, encode
from schemas.turns import EngineDescription, SpeakerTurn, SpeakerTurns


def result(duration_s: float, turns: int = 0) -> SpeakerTurns:
    spoken = tuple(SpeakerTurn(start_s=0.3 * i, end_s=0.3 * i + 0.2, speaker="SPEAKER_00") for i in range(turns))
    return SpeakerTurns(
        conversation_id="c",
        job_id="j",
        lease_id="l",
        agent_id="mac",
        engine=EngineDescription(name="pyannote"),
        duration_s=duration_s,
        turns=spoken,
        exclusive_turns=spoken,
    )


def windows(count: int, *, slots: int = 2, plda: bool = True) -> SpeechSamples:
    random = np.random.default_rng(1)
    segmentations = np.zeros((count, 589, slots), dtype=np.float32)
    segmentations[:, :300, 0] = segmentations[:, 200:, 1] = 1
    embeddings = random.normal(size=(count, slots, 256)).astype(np.float32)
    samples = sample_windows(segmentations, embeddings, window_s=10.0, hop_s=1.0)
    if not plda:
        return samples
    numbers = random.normal(size=(len(samples), 128))
    return SpeechSamples(**{**vars(samples), "plda": numbers, "phi": np.linspace(30, 0.1, 128)})


def test_windows_give_a_sample_for_each_slot_that_speaks() -> None:
    samples = windows(3)
    assert len(samples) == 6
    assert samples.start_s.tolist() == [0, 0, 1, 1, 2, 2]
    assert samples.speech is not None
    assert samples.speech[0].nonzero()[0].tolist() == list(range(51))
    assert samples.clean_s[:2] == pytest.approx([200 / 58.9, 289 / 58.9])


@pytest.mark.parametrize(("seconds", "every"), [(120, 1), (3_600, 5), (4 * 3_600, 20)])
def test_a_long_job_sends_every_nth_window_and_says_n(seconds: int, every: int) -> None:
    message = add_samples(result(seconds), windows(seconds - 9))
    samples = message.voice_samples
    assert samples is not None
    assert samples.every == every
    assert samples.count <= 1_500
    assert len(encode(message)) < 2_000_000
    starts = np.frombuffer(samples.times_s, "<f4").reshape(-1, 3)[:, 0]
    assert set(np.diff(np.unique(starts))) == {float(every)}


@pytest.mark.parametrize("turns", [2_000, 10_000, 16_000, 17_500])
def test_many_turns_leave_less_room_for_samples_and_the_message_still_fits(turns: int) -> None:
    message = add_samples(result(14_400, turns), windows(2_000))
    assert len(encode(message)) <= 2_000_000
    assert len(message.turns) == turns


def test_numbers_survive_as_float16() -> None:
    samples = windows(20)
    columns = decode(SpeakerTurns, encode(add_samples(result(29), samples))).voice_samples
    assert columns is not None
    sent = np.frombuffer(columns.embeddings, "<f2").reshape(columns.count, -1)
    assert np.abs(sent - samples.embeddings).max() < 2e-3
    assert len(columns.plda) == columns.count * 256


def test_samples_that_float16_cannot_hold_are_left_out() -> None:
    samples = windows(10, plda=False)
    samples.embeddings[0] = np.inf
    samples.embeddings[1] = 1e6
    samples.embeddings[2] = np.nan
    columns = add_samples(result(19), samples).voice_samples
    assert columns is not None
    assert columns.count == 17


def test_a_silent_job_has_no_samples() -> None:
    nothing = windows(4).keep(np.zeros(8, dtype=bool))
    assert add_samples(result(13), nothing).voice_samples is None
