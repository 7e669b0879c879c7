"""How long MP3, AAC and FLAC streams are: their frames are counted, so no header of the file needs to be believed.

Format of FLAC: RFC 9639.
"""

from __future__ import annotations

from typing import BinaryIO

from schemas.audio_container import skip_tags
from schemas.audio_frames import FRAME_HEAD_BYTES, read_frame_header
from vps_bridge.intake.measured_length import MAX_STEPS, AudioLength, extrapolate

TAIL_BYTES = 262_144  # a FLAC frame of 65,535 samples of one channel is not longer
NEGLIGIBLE_BYTES = 4_096  # behind the last frame: a tag, or the part of a frame
_FLAC_HEAD_BYTES = 16  # of a frame, at most


def measure_frames(file: BinaryIO, start: int, size: int) -> AudioLength | None:
    """Return the length of a stream of MPEG or ADTS frames, tags between them or not; None where there is no frame."""
    seconds, position = 0.0, start
    for _ in range(MAX_STEPS):
        file.seek(min(position, size))
        header = read_frame_header(file.read(FRAME_HEAD_BYTES))
        if header is not None:
            seconds, position = seconds + header.duration_s, position + header.bytes
            continue
        behind_tags = skip_tags(file, position)
        if behind_tags == position:
            break
        position = behind_tags
    if not seconds:
        return None
    return (
        extrapolate(seconds, position - start, size - start)
        if size - position > NEGLIGIBLE_BYTES
        else AudioLength(seconds)
    )


def measure_flac(file: BinaryIO, start: int, size: int) -> AudioLength | None:
    """Return the length of a FLAC file by the number of its last frame; where none is found, as its header claims."""
    position, info = start + 4, b""
    for _ in range(MAX_STEPS):
        file.seek(min(position, size))
        head = file.read(4)
        if len(head) < 4:  # noqa: PLR2004 - kind and length of a metadata block
            return None
        length = int.from_bytes(head[1:], "big")
        if head[0] & 0x7F == 0:
            info = file.read(34)
        position += 4 + length
        if head[0] & 0x80:  # the last one
            break
    if len(info) < 34:  # noqa: PLR2004 - STREAMINFO
        return None
    packed = int.from_bytes(info[10:18], "big")
    rate, channels, bits, claimed = (
        packed >> 44,
        (packed >> 41 & 7) + 1,
        (packed >> 36 & 31) + 1,
        packed & (1 << 36) - 1,
    )
    if not rate:
        return None
    file.seek(max(position, size - TAIL_BYTES))
    samples = _last_flac_sample(file.read(TAIL_BYTES), int.from_bytes(info[2:4], "big"))
    # Compression never makes it longer, beyond the headers: of several files in one, the last frame tells of one only.
    least_samples = int(0.95 * (size - position) * 8 / (channels * bits))
    counted = max(samples or claimed, least_samples)
    return AudioLength(counted / rate, is_estimated=samples is None or counted == least_samples) if counted else None


def _last_flac_sample(tail: bytes, block_samples: int) -> int | None:
    """Return how many samples there are up to the end of the last whole frame header in the tail."""
    place = len(tail)
    for _ in range(MAX_STEPS):
        place = tail.rfind(b"\xff", 0, place)
        if place < 0:
            return None
        samples = _read_flac_header(tail[place : place + _FLAC_HEAD_BYTES], block_samples)
        if samples is not None:
            return samples
    return None


def _read_flac_header(head: bytes, block_samples: int) -> int | None:
    """Return how many samples there are up to the end of this frame; None where its checksum is wrong."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:  # noqa: PLR2004 - sync word, reserved bit
        return None
    first = head[4]
    more = 0 if first < 0x80 else 7 - (first ^ 0xFF).bit_length()  # noqa: PLR2004 - as in UTF-8, up to 36 bits
    if first >= 0x80 and more < 1:  # noqa: PLR2004
        return None
    number = first if more == 0 else first & (0x3F >> more)
    for byte in head[5 : 5 + more]:
        number = number << 6 | byte & 0x3F
    place, code = 5 + more, head[2] >> 4
    extra = {6: 1, 7: 2}.get(code, 0)
    samples = _flac_block_samples(code, head[place : place + extra])
    place += extra + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if not samples or len(head) <= place or _crc8(head[:place]) != head[place]:
        return None
    return number + samples if head[1] & 1 else number * block_samples + samples


def _flac_block_samples(code: int, extra: bytes) -> int:
    if extra:
        return int.from_bytes(extra, "big") + 1
    if code == 1:
        return 192
    if 2 <= code <= 5:  # noqa: PLR2004 - the table of RFC 9639, 9.1.1
        return 576 << (code - 2)
    return 256 << (code - 8) if code >= 8 else 0  # noqa: PLR2004


def _crc8(data: bytes) -> int:
    """Return the checksum of a FLAC frame header: polynomial x^8 + x^2 + x + 1 (RFC 9639, 9.1.8)."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value << 1 ^ 0x107 if value & 0x80 else value << 1
    return value
