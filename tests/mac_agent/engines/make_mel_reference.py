"""Write data/mel_reference.npz: the mel spectrogram of two seconds of speech, computed by librosa as in Resemblyzer.

librosa is not a dependency of this project. To write the file again, in a separate environment:

    pip install librosa soundfile
    python tests/mac_agent/engines/make_mel_reference.py path/to/pyannote/audio/sample/sample.wav
"""

from __future__ import annotations

import sys
from pathlib import Path

import librosa  # type: ignore[import-not-found] # no dependency of ours
import numpy as np
import soundfile

FIRST_SAMPLE, LAST_SAMPLE = 160_000, 192_000

if __name__ == "__main__":
    speech, _ = soundfile.read(sys.argv[1], dtype="float32", start=FIRST_SAMPLE, stop=LAST_SAMPLE)
    mels = librosa.feature.melspectrogram(y=speech, sr=16_000, n_fft=400, hop_length=160, n_mels=40)
    np.savez_compressed(
        Path(__file__).parent / "data" / "mel_reference.npz",
        mels=mels.astype(np.float32).T,
        librosa_version=librosa.__version__,
    )
