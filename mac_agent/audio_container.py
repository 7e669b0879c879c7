"""Which container the bytes of a chunk are, and what a WAV header promises."""

from __future__ import annotations

import io
from typing import BinaryIO

from mac_agent.errors import AudioError
from schemas.audio import RAW_ENCODINGS
from schemas.audio_container import CONTAINER_NAMES, AudioContainer, find_container
from schemas.failure import FailureCode

MAX_WAV_CHUNKS = 100
UNKNOWN_WAV_BYTES = 0x7FFFF000  # a program that writes to a pipe puts the largest number it knows here
PLACEHOLDER_BYTES = 1_000_000_000  # or another large one: nine tenths of a gigabyte are not what was cut off

_RAW_FORMATS = {
    "pcm_s16le": "s16le",
    "pcm_u8": "u8",
    "pcm_mulaw": "mulaw",
    "pcm_alaw": "alaw",
    "pcm_f32le": "f32le",
}
_FFMPEG_NAMES = {AudioContainer.MP4: "mov", AudioContainer.WEBM: "matroska"}
# Packets of 32 KiB, not of 1,024 samples: 5 min in 40 ms instead of 200. FFmpeg would look into 150 of them at start.
_WAV_OPTIONS = {"max_size": "32768", "probesize": "32768"}


def choose_container(
    stream: BinaryIO, encoding: str, sample_rate: int | None, channels: int | None
) -> tuple[str, dict[str, str]]:
    """Return FFmpeg's name of the container, and the options that opening it takes."""
    stream.seek(0)
    if not stream.read(1):
        raise AudioError(FailureCode.AUDIO_EMPTY, "The chunk has no bytes. Publish audio, or nothing.")
    if encoding in RAW_ENCODINGS:
        if sample_rate is None or channels is None:
            raise AudioError(
                FailureCode.AUDIO_UNDECODABLE,
                f"The raw encoding {encoding} has no header: publish it with sample_rate and channels.",
            )
        return _RAW_FORMATS[encoding], {"sample_rate": str(sample_rate), "ch_layout": f"{channels}c"}
    found = find_container(stream)
    if found is None:
        raise AudioError(
            FailureCode.AUDIO_UNDECODABLE,
            f"The bytes are not those of {CONTAINER_NAMES}. Publish one of these, "
            f"or name a raw encoding: {', '.join(RAW_ENCODINGS)}.",
        )
    options = dict(_WAV_OPTIONS) if found.name is AudioContainer.WAV else {}
    if found.start_byte:  # FFmpeg skips an ID3 tag before MP3, AAC and FLAC, but not before other formats
        options["skip_initial_bytes"] = str(found.start_byte)
    return _FFMPEG_NAMES.get(found.name, found.name.value), options


def missing_wav_ratio(stream: BinaryIO) -> float:
    """Return bytes of samples promised over bytes there; 0 where the header does not state the length."""
    back = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    try:
        position = 12
        for _ in range(MAX_WAV_CHUNKS):
            stream.seek(position)
            head = stream.read(8)
            if len(head) < 8:  # noqa: PLR2004 - a chunk's name and length
                return 0.0
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                there = size - position - 8
                is_placeholder = length >= UNKNOWN_WAV_BYTES or (length >= PLACEHOLDER_BYTES and 10 * there < length)
                return 0.0 if is_placeholder or there <= 0 else length / there
            position += 8 + length + length % 2
        return 0.0
    finally:
        stream.seek(back)
