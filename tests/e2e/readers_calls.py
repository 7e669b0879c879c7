"""Calls of LibriSpeech readers as files, for a backend that sends them, and what it heard of their people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.people.conversations import talk
from benchmarks.recordings import SAMPLE_RATE_HZ, Recording, voices
from tests.e2e.system import make_wav

CHUNK_S = 30
PAUSES_S = (1.0, 3.0)  # by which it is seen that audio and transcript fit each other


def write_call(folder: Path, recording: Recording) -> None:
    samples = (np.clip(recording.waveform, -1.0, 1.0) * 32_767).astype("<i2")
    for place, first in enumerate(range(0, len(samples), CHUNK_S * SAMPLE_RATE_HZ)):
        chunk = samples[first : first + CHUNK_S * SAMPLE_RATE_HZ].tobytes()
        (folder / f"{recording.name}-{place}.wav").write_bytes(make_wav(chunk, SAMPLE_RATE_HZ))
    (folder / f"{recording.name}.json").write_text(json.dumps(recording.reference))


def write_calls(folder: Path) -> Path:
    """Three calls of two readers each, who never say the same twice, and one of them alone."""
    known, beside, enrolled, stranger = voices()[:4]
    write_call(folder, talk("first", [known, beside], [0, 1, 2], seed=1, pauses_s=PAUSES_S))
    write_call(folder, talk("second", [enrolled, known], [3, 4, 5], seed=2, pauses_s=PAUSES_S))
    write_call(folder, talk("alone", [enrolled], [0, 1], seed=3))
    write_call(folder, talk("third", [stranger, enrolled], [6, 7, 8], seed=4, pauses_s=PAUSES_S))
    return folder


def people_in(named: dict[str, list[Any]]) -> dict[str, set[Any]]:
    """By real speaker, whom the lines name and how surely."""
    return {
        who: {(person, identity) if person else None for _, person, identity, _ in lines}
        for who, lines in named.items()
    }
