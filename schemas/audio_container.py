"""Which container the bytes of a chunk are: one rule for the bridge's doors and for the agent's decoder.

A magic number of four bytes or more names a container. Two or three bytes do not, other files begin so as well: an MPEG
or ADTS frame counts with a second one of the same stream right behind it, and behind an ID3 tag (id3.org, "ID3 tag
version 2.4.0") what follows it is named.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from schemas.audio_frames import FRAME_HEAD_BYTES, MAX_FRAME_BYTES, FrameHeader, read_frame_header

CONTAINER_NAMES = "WAV, FLAC, Ogg, MP3, M4A or MP4, AAC (ADTS), WebM, AIFF or CAF"
"""For people: in messages that refuse something else."""
MAX_TAGS = 16
SEARCHED_BYTES = 16_384  # behind a tag, which may lie about its size or be followed by padding
MAGIC_BYTES = 12  # no magic number reaches further
_ID3_HEAD_BYTES = 10
_ID3_FOOTER = 0x10


class AudioContainer(StrEnum):
    """The containers that an agent decodes."""

    WAV = "wav"
    AIFF = "aiff"
    CAF = "caf"
    FLAC = "flac"
    OGG = "ogg"
    WEBM = "webm"
    MP4 = "mp4"
    MP3 = "mp3"
    AAC = "aac"


_WAV_FORMS = (b"RIFF", b"RF64", b"RIFX", b"BW64")
_MP4_BOXES = (b"ftyp", b"moov", b"moof", b"styp", b"wide", b"mdat", b"free", b"skip", b"sidx")
_MAGICS = (
    (b"fLaC", AudioContainer.FLAC),
    (b"OggS", AudioContainer.OGG),
    (b"\x1aE\xdf\xa3", AudioContainer.WEBM),
    (b"caff", AudioContainer.CAF),
)


@dataclass(frozen=True)
class FoundContainer:
    """What the bytes are, and where it begins: behind the ID3 tags, if there are any."""

    name: AudioContainer
    start_byte: int = 0


def find_container(audio: bytes | BinaryIO) -> FoundContainer | None:
    """Return which container this is; None where it is none that an agent decodes.

    Args:
        audio: all bytes, or a file that can be sought in; it is left anywhere. Reads a few kilobytes at most.
    """
    file = io.BytesIO(audio) if isinstance(audio, bytes) else audio
    start_byte = skip_tags(file, 0)
    if start_byte == 0:
        head = _read(file, 0, MAX_FRAME_BYTES + FRAME_HEAD_BYTES)
        name = name_by_magic(head) or _name_by_frames(head, 0, file)
        return None if name is None else FoundContainer(name)
    block = _read(file, start_byte, SEARCHED_BYTES + MAX_FRAME_BYTES + FRAME_HEAD_BYTES)
    padding = len(block) - len(block.lstrip(b"\0"))
    name = name_by_magic(block[padding:])
    if name is not None:  # the offsets in an MP4 file count from its first byte: one behind a tag is damaged
        return None if name is AudioContainer.MP4 else FoundContainer(name, start_byte + padding)
    place = block.find(0xFF)
    while 0 <= place < SEARCHED_BYTES:
        name = _name_by_frames(block, place, file, start_byte)
        if name is not None:
            return FoundContainer(name, start_byte + place)
        place = block.find(0xFF, place + 1)
    return None


def name_by_magic(head: bytes) -> AudioContainer | None:
    """Return the container whose magic number the first `MAGIC_BYTES` hold; None where they hold none."""
    form = head[8:12]
    if head[:4] in _WAV_FORMS and form == b"WAVE":
        return AudioContainer.WAV
    if head[:4] == b"FORM" and form in (b"AIFF", b"AIFC"):
        return AudioContainer.AIFF
    if head[4:8] in _MP4_BOXES:
        return AudioContainer.MP4
    return next((name for magic, name in _MAGICS if head.startswith(magic)), None)


def _name_by_frames(block: bytes, place: int, file: BinaryIO, block_byte: int = 0) -> AudioContainer | None:
    """Name a stream of frames whose first begins at `place`, and whose second follows it or is where the file ends."""
    first = read_frame_header(block[place : place + FRAME_HEAD_BYTES])
    if first is None:
        return None
    behind = place + first.bytes
    second = read_frame_header(block[behind : behind + FRAME_HEAD_BYTES])
    if second is None or second.stream != first.stream:
        ends_the_file = second is None and block_byte + behind == file.seek(0, io.SEEK_END)
        if not ends_the_file:
            return None
    return _name_of_frames(first)


def _name_of_frames(frame: FrameHeader) -> AudioContainer:
    return AudioContainer.AAC if frame.is_adts else AudioContainer.MP3


def skip_tags(file: BinaryIO, position: int) -> int:
    """Return where the last of the ID3 tags ends that begin at `position`; `position` itself where none does."""
    for _ in range(MAX_TAGS):
        head = _read(file, position, _ID3_HEAD_BYTES)
        sizes = head[6:]
        if len(sizes) < 4 or head[:3] != b"ID3" or 0xFF in head[3:5] or max(sizes) > 0x7F:  # noqa: PLR2004 - seven bits each
            break
        size = sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3]
        position += _ID3_HEAD_BYTES + size + (_ID3_HEAD_BYTES if head[5] & _ID3_FOOTER else 0)
    return position


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)
