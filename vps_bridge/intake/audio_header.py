"""What a chunk's header says about its format and length. The bridge never decodes audio."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import structlog
from tinytag import TinyTag

from schemas.audio import RAW_ENCODINGS
from schemas.audio_container import AudioContainer, find_container

_LOG = structlog.get_logger(__name__)
BYTES_PER_SAMPLE = {"pcm_s16le": 2, "pcm_u8": 1, "pcm_mulaw": 1, "pcm_alaw": 1, "pcm_f32le": 4}
MAX_WAV_CHUNKS = 100
MIN_SAMPLE_RATE_HZ = 1_000  # as in the contract
_PLAIN_FORMATS = (1, 3, 0xFFFE)  # PCM, IEEE float, and either of them with an extension


def recognise(path: Path) -> AudioContainer | None:
    """Return which container a file is, by its bytes; None where it is none that an agent decodes."""
    with path.open("rb") as file:
        found = find_container(file)
    return None if found is None else found.name


def raw_duration_s(encoding: str, size_bytes: int, sample_rate: int, channels: int) -> float:
    """Return the length in seconds of headerless samples."""
    return size_bytes / (BYTES_PER_SAMPLE[encoding] * channels * sample_rate)


def is_raw(encoding: str) -> bool:
    """Whether the encoding is headerless samples."""
    return encoding in RAW_ENCODINGS


def claimed_duration_s(path: Path) -> float | None:
    """Return the length the header claims, or None where it claims nothing usable.

    The claim only serves to gather chunks into jobs; the real length is what the agent's decoder finds. Of PCM in a WAV
    file the bytes themselves tell the length: a program that writes to a pipe does not know it and claims anything.
    """
    try:
        with path.open("rb") as file:
            duration_s = _wav_duration_s(file) or TinyTag.get(file_obj=file, tags=False).duration
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged or hostile bytes may make the parser raise anything
        _LOG.info("header_unreadable", error=type(error).__name__)
        return None
    if duration_s is None or not 0 < duration_s < path.stat().st_size:  # less than a byte a second is impossible
        return None
    return float(duration_s)


def _wav_duration_s(file: BinaryIO) -> float | None:
    """Return the length of the samples that are in a WAV file, or None where it is none, or not of plain samples.

    Format of the header: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0" (RIFF).
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head, position, bytes_per_s = file.read(12), 12, 0
    for _ in range(MAX_WAV_CHUNKS if head[:4] == b"RIFF" and head[8:12] == b"WAVE" else 0):
        file.seek(position)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"fmt ":
            bytes_per_s = _sample_bytes_per_s(file.read(16))
        elif name == b"data":
            there = max(0, size - position - 8)
            samples = there if not 0 < length < there else length
            file.seek(0)
            return samples / bytes_per_s if bytes_per_s else None
        elif len(name) < 4:
            break
        position += 8 + length + length % 2
    file.seek(0)
    return None


def _sample_bytes_per_s(description: bytes) -> int:
    """Return the bytes a second of uncompressed samples; 0 where it is another format or contradicts itself."""
    if len(description) < 16:
        return 0
    kind, channels, rate, bytes_per_s, block, bits = struct.unpack("<HHIIHH", description)
    is_plain = kind in _PLAIN_FORMATS and block == channels * bits // 8 and bytes_per_s == rate * block
    return bytes_per_s if is_plain and rate >= MIN_SAMPLE_RATE_HZ else 0
