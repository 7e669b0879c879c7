"""How plain samples lie in a WAV or CAF file, where a header and its samples may disagree about their width."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_BYTES = 3 << 20  # whole words of 1, 2, 3 and 4 bytes
WAVE_PCM, WAVE_FLOAT, WAVE_EXTENSIBLE = 1, 3, 0xFFFE
# Behind the first byte, its tag, the GUID of every format that has one (KSDATAFORMAT_SUBTYPE_WAVEFORMATEX).
_GUID_TAIL = bytes.fromhex("00000000001000800000aa00389b71")
_CAF_FLOAT, _CAF_LITTLE_ENDIAN = 1, 2
_INTEGER_BITS, _FLOAT_BITS = (16, 24, 32), (32, 64)

ByteOrder = Literal["little", "big"]


@dataclass(frozen=True)
class PcmLayout:
    """Plain samples: integers or floating point, each in a word of whole bytes."""

    rate_hz: int
    channels: int
    word_bits: int
    """Of the room a sample takes."""
    valid_bits: int
    """Of these, how many the header says are used."""
    is_float: bool
    order: ByteOrder
    is_extensible: bool = False

    @property
    def is_usual(self) -> bool:
        """Whether FFmpeg reads such a header as it is meant. Of 24 bits in 32 it makes a floating point number."""
        return self.valid_bits == self.word_bits and self.order == "little"

    @property
    def raw_format(self) -> str:
        """FFmpeg's name of a file of such samples without a header."""
        return f"{'f' if self.is_float else 's'}{self.word_bits}{self.order[0]}e"


def read_wave_format(chunk: bytes, order: ByteOrder) -> PcmLayout | None:
    """Read a `fmt ` chunk (WAVEFORMATEX, WAVEFORMATEXTENSIBLE); None where it is of no plain samples."""
    if len(chunk) < 16:
        return None
    sign = "<" if order == "little" else ">"
    tag, channels, rate_hz, _, block_bytes, said_bits = struct.unpack(sign + "HHIIHH", chunk[:16])
    valid_bits = said_bits
    is_extensible = tag == WAVE_EXTENSIBLE
    if is_extensible:
        if len(chunk) < 40 or chunk[25:40] != _GUID_TAIL:
            return None
        valid_bits, tag = struct.unpack(sign + "H", chunk[18:20])[0] or said_bits, chunk[24]
    if tag not in (WAVE_PCM, WAVE_FLOAT):
        return None
    return _layout(rate_hz, channels, block_bytes, valid_bits, tag == WAVE_FLOAT, order, is_extensible=is_extensible)


def read_caf_format(chunk: bytes) -> PcmLayout | None:
    """Read a `desc` chunk of CAF; None where it is of no plain samples."""
    if len(chunk) < 32 or chunk[8:12] != b"lpcm":
        return None
    rate_hz, _, flags, packet_bytes, frames, channels, bits = struct.unpack(">d4sIIIII", chunk[:32])
    if frames != 1 or not 1 <= rate_hz < 2**31:
        return None
    order: ByteOrder = "little" if flags & _CAF_LITTLE_ENDIAN else "big"
    return _layout(round(rate_hz), channels, packet_bytes, bits, bool(flags & _CAF_FLOAT), order)


def _layout(
    rate_hz: int,
    channels: int,
    block_bytes: int,
    valid_bits: int,
    is_float: bool,  # noqa: FBT001
    order: ByteOrder,
    *,
    is_extensible: bool = False,
) -> PcmLayout | None:
    if not channels or block_bytes % channels:
        return None
    word_bits = 8 * block_bytes // channels
    if word_bits not in (_FLOAT_BITS if is_float else _INTEGER_BITS) or not 0 < valid_bits <= word_bits:
        return None
    return PcmLayout(rate_hz, channels, word_bits, valid_bits, is_float, order, is_extensible)


@dataclass(frozen=True)
class WordRange:
    """What the words of a file have in common."""

    least: int
    greatest: int
    used_bits: int
    """Every bit that is set in one of them."""

    def is_left_justified(self, valid_bits: int, word_bits: int) -> bool:
        """Whether the lowest bits, which no sample of so many bits needs, are always zero."""
        return self.used_bits & ((1 << (word_bits - valid_bits)) - 1) == 0

    def is_right_justified(self, valid_bits: int) -> bool:
        """Whether every word is a number of so many bits, with a sign or with zeros above it."""
        half = 1 << (valid_bits - 1)
        return (-half <= self.least and self.greatest < half) or (self.least >= 0 and self.greatest < 2 * half)


def measure_words(stream: BinaryIO, start: int, end: int, layout: PcmLayout, enough_bits: int) -> WordRange:
    """Read the words of [start, end) until one needs more than `enough_bits`."""
    word_bytes = layout.word_bits // 8
    least, greatest, used = 0, 0, 0
    stream.seek(start)
    left = (end - start) // word_bytes * word_bytes
    while left > 0:
        block = stream.read(min(BLOCK_BYTES, left))
        block = block[: len(block) // word_bytes * word_bytes]
        if not block:
            break
        left -= len(block)
        words = _words(block, layout)
        least, greatest = min(least, int(words.min())), max(greatest, int(words.max()))
        used |= int(np.bitwise_or.reduce(words)) & ((1 << layout.word_bits) - 1)
        if not WordRange(least, greatest, used).is_right_justified(enough_bits):
            break
    return WordRange(least, greatest, used)


def _words(block: bytes, layout: PcmLayout) -> NDArray[np.int32]:
    sign = "<" if layout.order == "little" else ">"
    if layout.word_bits != 24:
        return np.frombuffer(block, dtype=f"{sign}i{layout.word_bits // 8}").astype(np.int32)
    wide = np.zeros((len(block) // 3, 4), dtype=np.uint8)
    wide[:, 1:] = np.frombuffer(block, dtype=np.uint8).reshape(-1, 3)[:, :: 1 if layout.order == "little" else -1]
    return wide.view("<i4")[:, 0] >> 8
