"""A job is judged as a whole: one chunk in which nobody speaks, or that is empty, makes it no worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mac_agent.engines.engine import Hints
from mac_agent.inference import EMPTY_CHUNK, ChunkSource, JobResult, WorkerJob, run_job
from tests.mac_agent.sounds import as_wav, tone
from tests.mac_agent.tone_engine import ToneEngine

DAMAGED = b"fLaC" + bytes(range(256)) * 40  # begins as FLAC does


def run(directory: Path, *sounds: np.ndarray | bytes) -> JobResult:
    sources = []
    for number, sound in enumerate(sounds):
        path = directory / f"{number}.wav"
        path.write_bytes(sound if isinstance(sound, bytes) else as_wav(sound))
        sources.append(ChunkSource(path))
    job = WorkerJob(1, tuple(sources), Hints(), max_audio_s=600.0)
    return run_job(ToneEngine(directory / "behaviour"), job, lambda _stage, _share: None, lambda _seconds: None)


def test_a_pause_in_a_loud_job_is_not_called_a_poor_recording(tmp_path: Path) -> None:
    pause = 0.0005 * np.random.default_rng(1).standard_normal(80_000)
    assert run(tmp_path, tone(440, 5), pause, tone(440, 5)).warnings == ()


def test_a_job_that_is_quiet_throughout_is_called_so_once(tmp_path: Path) -> None:
    quiet = [0.0003 * number * np.random.default_rng(number).standard_normal(80_000) for number in (1, 2)]
    warnings = run(tmp_path, *quiet).warnings
    assert [line.partition(":")[0] for line in warnings] == ["audio.quiet", "audio.low_quality"]


def test_a_chunk_without_samples_costs_the_others_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, tone(440, 5), tone(440, 0), tone(440, 5))
    assert result.duration_s == 10.0
    assert [chunk.duration_s for chunk in result.placed] == [5.0, 0.0, 5.0]
    assert [(turn.start_s, turn.end_s) for turn in result.diarization.turns] == [(0.0, 10.0)]
    assert result.warnings == (EMPTY_CHUNK,)


def test_a_chunk_that_cannot_be_decoded_costs_the_others_nothing_and_is_named(tmp_path: Path) -> None:
    result = run(tmp_path, tone(440, 5), DAMAGED, tone(440, 5), DAMAGED)
    assert [chunk.duration_s for chunk in result.placed] == [5.0, 0.0, 5.0, 0.0]
    assert [(turn.start_s, turn.end_s) for turn in result.diarization.turns] == [(0.0, 10.0)]
    assert {index: words.partition(" (")[0] for index, words in result.undecoded.items()} == dict.fromkeys(
        (1, 3), "The chunk cannot be decoded"
    )


@pytest.mark.parametrize("others", [(DAMAGED,), (tone(440, 0),)], ids=["damaged", "empty"])
def test_a_job_of_which_nothing_can_be_decoded_fails(tmp_path: Path, others: tuple[np.ndarray | bytes, ...]) -> None:
    with pytest.raises(Exception, match="cannot be decoded"):
        run(tmp_path, *others, DAMAGED)


def test_a_job_of_nothing_but_empty_chunks_fails(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no samples"):
        run(tmp_path, tone(440, 0), tone(440, 0))
