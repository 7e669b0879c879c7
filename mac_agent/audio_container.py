"""Which container the bytes of a chunk are, by their first bytes."""

from __future__ import annotations

from typing import BinaryIO

from mac_agent.errors import AudioError
from schemas.audio import RAW_ENCODINGS
from schemas.failure import FailureCode

HEAD_BYTES = 16

_RAW_FORMATS = {
    "pcm_s16le": "s16le",
    "pcm_u8": "u8",
    "pcm_mulaw": "mulaw",
    "pcm_alaw": "alaw",
    "pcm_f32le": "f32le",
}
# Packets of 32 KiB, not of 1,024 samples: 5 min in 40 ms instead of 200. FFmpeg would look into 150 of them at start.
_WAV_OPTIONS = {"max_size": "32768", "probesize": "32768"}


def choose_container(
    stream: BinaryIO, encoding: str, sample_rate: int | None, channels: int | None
) -> tuple[str, dict[str, str]]:
    """Return FFmpeg's name of the container, and the options that opening it takes."""
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    if not head:
        raise AudioError(FailureCode.AUDIO_EMPTY, "The chunk has no bytes. Publish audio, or nothing.")
    if encoding in RAW_ENCODINGS:
        if sample_rate is None or channels is None:
            raise AudioError(
                FailureCode.AUDIO_UNDECODABLE,
                f"The raw encoding {encoding} has no header: publish it with sample_rate and channels.",
            )
        return _RAW_FORMATS[encoding], {"sample_rate": str(sample_rate), "ch_layout": f"{channels}c"}
    container = _sniff(head)
    if container is None:
        raise AudioError(
            FailureCode.AUDIO_UNDECODABLE,
            "The first bytes are not those of WAV, FLAC, Ogg, MP3, M4A, AAC, WebM, AIFF or CAF. Publish one of these, "
            f"or name a raw encoding: {', '.join(RAW_ENCODINGS)}.",
        )
    return container, _WAV_OPTIONS if container == "wav" else {}


def _sniff(head: bytes) -> str | None:
    """Name the container by its magic bytes."""
    if head[:4] in (b"RIFF", b"RF64", b"RIFX", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] in (b"ftyp", b"moov", b"moof", b"styp", b"wide", b"mdat"):
        return "mov"
    for magic, container in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"\x1aE\xdf\xa3", "matroska"), (b"caff", "caf")):
        if head.startswith(magic):
            return container
    # An MPEG sync word is eleven set bits; layer 00 is AAC's ADTS (ISO 13818-7), anything else MP1-MP3.
    if head[:3] == b"ID3" or (head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0):  # noqa: PLR2004
        return "aac" if head[0] == 0xFF and head[1] & 0x06 == 0 else "mp3"  # noqa: PLR2004
    return None
