"""The recording that comes with every installation: pyannote's sample, 30 s of a telephone call of two people."""

from __future__ import annotations

import wave
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mac_agent.engines.engine import SAMPLE_RATE_HZ
from mac_agent.errors import EngineError

if TYPE_CHECKING:
    from mac_agent.engines.engine import Waveform

CLIP_S = 20.0
_SAMPLE_BYTES = 2


def find_clip() -> Path:
    """Return the path of the recording, without importing pyannote.audio.

    Raises:
        EngineError: the installed pyannote.audio does not contain it.
    """
    spec = find_spec("pyannote")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "audio" / "sample" / "sample.wav"
        if path.is_file():
            return path
    raise EngineError("pyannote.audio's sample/sample.wav is missing. Install it again: make env")


def load_clip(seconds: float = CLIP_S) -> Waveform:
    """Return the first seconds of the recording.

    Raises:
        EngineError: the installed pyannote.audio does not contain it, or its sample has another format.
    """
    path = find_clip()
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE_HZ, 1, _SAMPLE_BYTES):
            raise EngineError(f"{path} is not the sample that is expected. Install pyannote.audio again: make env")
        samples = np.frombuffer(file.readframes(int(seconds * SAMPLE_RATE_HZ)), dtype="<i2")
    return (samples / np.float32(1 << 15)).astype(np.float32)
