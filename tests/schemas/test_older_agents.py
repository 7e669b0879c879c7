"""A result as an agent of the version before sent it (recorded) is read as it was meant."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.codec import decode, encode
from schemas.turns import SpeakerTurns, VoiceSamples

RECORDED = Path(__file__).parent / "recorded"
COLUMNS = {"count": 2, "times_s": struct.pack("<6f", 0, 10, 5, 1, 11, 5), "embeddings": b"\x00\x3c" * 8}


def test_a_recorded_result_of_version_1_0_is_read() -> None:
    result = decode(SpeakerTurns, (RECORDED / "speaker-turns-1.0.msgpack").read_bytes())
    assert (result.version, len(result.turns), len(result.speakers)) == ("1.0", 17, 2)
    assert result.voice_samples is None
    assert decode(SpeakerTurns, encode(result)) == result


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 3},
        {"count": 0},
        {"count": 1_501},
        {"embeddings": b""},
        {"embeddings": b"\x00\x3c" * 7},
        {"embeddings": b"\x00\x7c" * 8},  # infinity
        {"embeddings": b"\x01\xfe" * 8},  # NaN
        {"times_s": struct.pack("<6f", 0, 10, 5, 11, 1, 5)},
        {"times_s": struct.pack("<6f", 0, float("nan"), 5, 1, 11, 5)},
        {"times_s": struct.pack("<6f", 0, 10, 5, 1, 11, -5)},
        {"speech": b"\xff\xff\xff"},
        {"plda": b"\x00\x3c" * 4},
        {"phi": struct.pack("<2f", 1, 1)},
        {"plda": b"\x00\x3c" * 4, "phi": struct.pack("<2f", 1, -1)},
        {"plda": b"\x00\x3c" * 4, "phi": struct.pack("<2f", 1, float("inf"))},
    ],
)
def test_samples_that_do_not_fit_together_are_refused(wrong: dict[str, object]) -> None:
    VoiceSamples.model_validate(COLUMNS)
    with pytest.raises(ValidationError):
        VoiceSamples.model_validate({**COLUMNS, **wrong})
