"""Which container the bytes of a chunk are, and how FFmpeg is to open it."""

from __future__ import annotations

from typing import BinaryIO

from mac_agent.errors import AudioError
from schemas.audio import RAW_ENCODINGS
from schemas.audio_container import CONTAINER_NAMES, AudioContainer, find_container
from schemas.failure import FailureCode

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
