"""What a chunk's bytes say about its format and length. The bridge never decodes audio, and believes no header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import structlog

from schemas.audio import RAW_ENCODINGS, RAW_SAMPLE_BYTES
from schemas.audio_container import MAGIC_BYTES, AudioContainer, FoundContainer, find_container, name_by_magic
from vps_bridge.intake.length_of_frames import measure_flac, measure_frames
from vps_bridge.intake.length_of_mp4 import measure_mp4
from vps_bridge.intake.length_of_pages import measure_ogg
from vps_bridge.intake.length_of_samples import measure_aiff, measure_caf, measure_wav
from vps_bridge.intake.length_of_webm import measure_webm
from vps_bridge.intake.measured_length import AudioLength
from vps_bridge.ledger.records import TYPICAL_BYTES_PER_S

_LOG = structlog.get_logger(__name__)
MIN_BYTES_PER_S = 8.0
"""Fewer hold no second of audio. Digital silence at 8 kHz takes 20 in FLAC, and in Opus that sends none of it."""
MIN_STATED_BYTES_PER_S = 200.0
"""A publisher who states a length that leaves fewer means milliseconds, or is wrong: speech takes 700 at least."""
MAX_BYTES_PER_S = 50_000_000.0  # 16 channels of 32 bit at 768 kHz

_MEASURES: dict[AudioContainer, Callable[[BinaryIO, int, int], AudioLength | None]] = {
    AudioContainer.WAV: measure_wav,
    AudioContainer.AIFF: measure_aiff,
    AudioContainer.CAF: measure_caf,
    AudioContainer.FLAC: measure_flac,
    AudioContainer.OGG: measure_ogg,
    AudioContainer.WEBM: measure_webm,
    AudioContainer.MP4: measure_mp4,
    AudioContainer.MP3: measure_frames,
    AudioContainer.AAC: measure_frames,
}


def recognise(path: Path) -> FoundContainer | None:
    """Return which container a file is, by its bytes; None where it is none that an agent decodes."""
    with path.open("rb") as file:
        return find_container(file)


def has_magic(path: Path) -> bool:
    """Whether the bytes begin with the magic number of a container."""
    with path.open("rb") as file:
        return name_by_magic(file.read(MAGIC_BYTES)) is not None


def is_raw(encoding: str) -> bool:
    """Whether the encoding is headerless samples."""
    return encoding in RAW_ENCODINGS


def raw_duration_s(encoding: str, size_bytes: int, sample_rate: int, channels: int) -> float:
    """Return the length in seconds of headerless samples."""
    return size_bytes / (RAW_SAMPLE_BYTES[encoding] * channels * sample_rate)


def measure_length(path: Path, found: FoundContainer, stated_s: float | None) -> AudioLength:
    """Return how long a file's audio is: as counted, else as its publisher states, else estimated from its bytes.

    The length serves to gather chunks into jobs until an agent has decoded them. What its bytes cannot hold is ignored,
    whoever says it.
    """
    size = path.stat().st_size
    measured = _measure(path, found, size)
    if measured is not None and not measured.is_estimated:
        return measured
    if stated_s is not None and _is_possible(stated_s, size, MIN_STATED_BYTES_PER_S):
        return AudioLength(stated_s)
    return measured or AudioLength(size / TYPICAL_BYTES_PER_S, is_estimated=True)


def _measure(path: Path, found: FoundContainer, size: int) -> AudioLength | None:
    try:
        with path.open("rb") as file:
            measured = _MEASURES[found.name](file, found.start_byte, size)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - hostile bytes may break a parser; their length is unknown then
        _LOG.warning("length_unreadable", container=found.name, error=type(error).__name__)
        return None
    return measured if measured is not None and _is_possible(measured.duration_s, size) else None


def _is_possible(duration_s: float, size_bytes: int, min_bytes_per_s: float = MIN_BYTES_PER_S) -> bool:
    return size_bytes / MAX_BYTES_PER_S <= duration_s <= size_bytes / min_bytes_per_s
