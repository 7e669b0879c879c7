"""Headers of MPEG audio and ADTS frames: streams without a file header, known only by frames that follow each other.

Formats: ISO/IEC 11172-3 and 13818-3 (MPEG audio, layers I to III), ISO/IEC 13818-7, annex A (AAC in ADTS).
"""

from __future__ import annotations

from dataclasses import dataclass

FRAME_HEAD_BYTES = 7  # of ADTS; an MPEG header has four
MAX_FRAME_BYTES = 8_191  # ADTS has 13 bits for it; no MPEG frame is longer than 2,881
_MPEG_RATES_HZ = (44_100, 48_000, 32_000)
_ADTS_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_LAYER_1, _LAYER_2, _LAYER_3, _ADTS = 3, 2, 1, 0  # as the two bits say it
_KILOBITS = {  # per second, by (whether MPEG-1, layer); index 0, "free format", is not decoded by FFmpeg either
    (True, _LAYER_1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, _LAYER_2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, _LAYER_3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, _LAYER_1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, _LAYER_2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, _LAYER_3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@dataclass(frozen=True)
class FrameHeader:
    """What the header of one frame says."""

    bytes: int
    """Of the whole frame, its header too."""
    samples: int
    """Of each channel."""
    sample_rate_hz: int
    stream: tuple[int, ...]
    """Fields that all frames of a stream share: version, layer, sample rate; of ADTS the profile and channels too."""
    is_adts: bool = False

    @property
    def duration_s(self) -> float:
        """Seconds of audio in the frame."""
        return self.samples / self.sample_rate_hz


def read_frame_header(head: bytes) -> FrameHeader | None:
    """Return what the header says that begins here; None where none does, or one that contradicts itself.

    `head`: at least `FRAME_HEAD_BYTES` bytes of ADTS, 4 of MPEG audio.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:  # noqa: PLR2004 - eleven set bits
        return None
    return _read_adts(head) if head[1] & 0x06 == _ADTS else _read_mpeg(head)


def _read_mpeg(head: bytes) -> FrameHeader | None:
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or bit_rate in (0, 15) or rate == 3:  # noqa: PLR2004 - reserved values
        return None
    is_mpeg1 = version == 3  # noqa: PLR2004 - 2 is MPEG-2, 0 is MPEG-2.5
    rate_hz = _MPEG_RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == _LAYER_1 else 576 if layer == _LAYER_3 and not is_mpeg1 else 1_152
    slot_bytes = 4 if layer == _LAYER_1 else 1
    bits_per_s = 1_000 * _KILOBITS[is_mpeg1, layer][bit_rate]
    size = (samples // 8 * bits_per_s // (slot_bytes * rate_hz) + padding) * slot_bytes
    return FrameHeader(size, samples, rate_hz, (version, layer, rate))


def _read_adts(head: bytes) -> FrameHeader | None:
    if len(head) < FRAME_HEAD_BYTES or head[1] & 0xF0 != 0xF0:  # noqa: PLR2004 - the sync word has twelve bits here
        return None
    rate, size = head[2] >> 2 & 15, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if rate >= len(_ADTS_RATES_HZ) or size <= FRAME_HEAD_BYTES:
        return None
    channels = (head[2] & 1) << 2 | head[3] >> 6
    samples = 1_024 * ((head[6] & 3) + 1)
    stream = (head[1] >> 3 & 1, head[2] >> 6, rate, channels)
    return FrameHeader(size, samples, _ADTS_RATES_HZ[rate], stream, is_adts=True)
