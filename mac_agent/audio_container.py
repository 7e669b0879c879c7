"""Which container the bytes of a chunk are, and how FFmpeg is to open it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from mac_agent.errors import AudioError
from schemas.audio import RAW_ENCODINGS
from schemas.audio_container import CONTAINER_NAMES, AudioContainer, find_container, skip_tags
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


@dataclass(frozen=True)
class ChosenContainer:
    """How FFmpeg is to open what is in a body."""

    name: str
    """FFmpeg's."""
    options: dict[str, str]
    start_byte: int = 0
    """Where it begins: behind ID3 tags, which FFmpeg would skip before some containers only."""
    ignored_bytes: int = 0
    """Between the tags and it."""


def choose_container(stream: BinaryIO, encoding: str, sample_rate: int | None, channels: int | None) -> ChosenContainer:
    """Return which container the body begins with.

    Raises:
        AudioError: it is empty, or begins as none that is read here.
    """
    stream.seek(0)
    if not stream.read(1):
        raise AudioError(FailureCode.AUDIO_EMPTY, "The chunk has no bytes. Publish audio, or nothing.")
    if encoding in RAW_ENCODINGS:
        if sample_rate is None or channels is None:
            raise AudioError(
                FailureCode.AUDIO_UNDECODABLE,
                f"The raw encoding {encoding} has no header: publish it with sample_rate and channels.",
            )
        layout = {"sample_rate": str(sample_rate), "ch_layout": f"{channels}c"}
        return ChosenContainer(_RAW_FORMATS[encoding], layout)
    found = find_container(stream)
    if found is None:
        raise AudioError(
            FailureCode.AUDIO_UNDECODABLE,
            f"The bytes are not those of {CONTAINER_NAMES}. Publish one of these, "
            f"or name a raw encoding: {', '.join(RAW_ENCODINGS)}.",
        )
    options = dict(_WAV_OPTIONS) if found.name is AudioContainer.WAV else {}
    name = _FFMPEG_NAMES.get(found.name, found.name.value)
    return ChosenContainer(name, options, found.start_byte, _count_ignored(stream, found.start_byte))


def _count_ignored(stream: BinaryIO, end: int) -> int:
    """Return how many bytes before `end` are neither of an ID3 tag nor the zeros that programs leave behind one."""
    tags_end = skip_tags(stream, 0)
    stream.seek(tags_end)
    between = stream.read(end - tags_end)
    padding = len(between) - len(between.lstrip(b"\0"))
    return max(0, end - skip_tags(stream, tags_end + padding))
