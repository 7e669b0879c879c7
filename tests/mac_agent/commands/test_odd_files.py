"""Files that once gave too little, or nothing, without a word: through `omi-agent diarize` with the embedded engine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
import soundfile

from tests.mac_agent.agent_command import omi_agent

pytestmark = [pytest.mark.shared, pytest.mark.long]
EXIT_AUDIO = 5


@pytest.fixture(scope="module")
def weights_dir() -> Path:
    folder = Path(os.environ.get("OMI_DATA_DIR") or platformdirs.user_data_dir("omi-diarization"))
    if not (folder / "models" / "embedded").is_dir():
        pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")
    return folder


def diarize(file: Path, weights_dir: Path) -> dict[str, Any]:
    done = omi_agent("diarize", file, "--engine", "embedded", "--json", data_dir=weights_dir)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_six_wavs_in_one_body_are_one_conversation(shared_dir, weights_dir):
    found = diarize(shared_dir / "cases" / "wavs_back_to_back" / "a08_concatenated_wavs.wav", weights_dir)
    assert found["duration_s"] == pytest.approx(30.0, abs=0.01)
    assert found["warnings"] == []
    assert len(found["speakers"]) == 2
    assert found["turns"][-1]["end_s"] > 29


def test_the_first_track_that_can_be_decoded_is_and_the_other_is_counted(shared_dir, weights_dir):
    file = shared_dir / "cases" / "qta_unknown_track_first" / "b13_qta_unknown_first.mov"
    done = omi_agent("diarize", file, "--engine", "embedded", data_dir=weights_dir)
    assert done.returncode == 0, done.stderr
    assert "2 speakers" in done.stdout
    assert "warning: audio.tracks_ignored: 1" in done.stderr


def test_24_bits_in_words_of_32_have_the_turns_of_the_same_speech_written_plainly(shared_dir, weights_dir, tmp_path):
    file = shared_dir / "cases" / "wav_extensible_24_in_32" / "first10s.wav"
    data = file.read_bytes()
    words = np.frombuffer(data[data.index(b"data") + 8 :], dtype="<i4")
    channels, rate_hz = int.from_bytes(data[22:24], "little"), int.from_bytes(data[24:28], "little")
    plain = tmp_path / "plain.wav"
    soundfile.write(plain, (words / 2**31).reshape(-1, channels), rate_hz, subtype="PCM_24")
    odd, usual = diarize(file, weights_dir), diarize(plain, weights_dir)
    assert odd["turns"]
    assert odd["turns"] == usual["turns"]
    assert odd["quality"]["rms_dbfs"] == pytest.approx(usual["quality"]["rms_dbfs"], abs=0.1)
    assert odd["warnings"] == []


def test_a_file_of_which_nothing_can_be_decoded_is_no_success(weights_dir, tmp_path):
    file = tmp_path / "broken.flac"
    file.write_bytes(b"fLaC\x00\x00\x00\x22" + bytes(range(256)) * 40)
    done = omi_agent("diarize", file, "--engine", "embedded", data_dir=weights_dir)
    assert done.returncode == EXIT_AUDIO
    assert re.search(r"broken\.flac: .*cannot be decoded.*audio\.undecodable", done.stderr)
