"""What a chunk's header says about its format and length. The bridge never decodes audio."""

from __future__ import annotations

from pathlib import Path

import structlog
from tinytag import TinyTag

from schemas.audio import RAW_ENCODINGS

_LOG = structlog.get_logger(__name__)
BYTES_PER_SAMPLE = {"pcm_s16le": 2, "pcm_u8": 1, "pcm_mulaw": 1, "pcm_alaw": 1, "pcm_f32le": 4}
HEAD_BYTES = 64
_MP3_SYNC = 0xE0


def recognise(head: bytes) -> str | None:
    """Return the container's name by its magic bytes, or None where it is none of those below."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    for magic, name in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"\x1aE\xdf\xa3", "webm")):
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        return "mp4"
    if len(head) > 1 and head[0] == 0xFF and head[1] & _MP3_SYNC == _MP3_SYNC:
        return "mp3"
    return None


def raw_duration_s(encoding: str, size_bytes: int, sample_rate: int, channels: int) -> float:
    """Return the length in seconds of headerless samples."""
    return size_bytes / (BYTES_PER_SAMPLE[encoding] * channels * sample_rate)


def is_raw(encoding: str) -> bool:
    """Whether the encoding is headerless samples."""
    return encoding in RAW_ENCODINGS


def claimed_duration_s(path: Path) -> float | None:
    """Return the length the header claims, or None where it claims nothing usable.

    The claim only serves to gather chunks into jobs; the real length is what the agent's decoder finds.
    """
    try:
        with path.open("rb") as file:
            duration_s = TinyTag.get(file_obj=file, tags=False).duration
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged or hostile bytes may make the parser raise anything
        _LOG.info("header_unreadable", error=type(error).__name__)
        return None
    if duration_s is None or not 0 < duration_s < path.stat().st_size:  # less than a byte a second is impossible
        return None
    return float(duration_s)
