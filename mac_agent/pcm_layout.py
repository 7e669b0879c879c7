"""How plain samples lie in a WAV or CAF file, where a header and its samples may disagree about their width."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np

from schemas.audio_frames import read_frame_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

ByteOrder = Literal["little", "big"]
Coding = Literal["s", "f", "alaw", "mulaw"]
"""Integers, floating point, and the two of telephones."""

BLOCK_BYTES = 3 << 20  # whole words of 1, 2, 3 and 4 bytes
JUDGED_WORDS = 1_000  # a sixteenth of a second that is not silent
FLOAT_EXPONENTS = 64, 160  # 2**-63 to 2**33: whatever a program takes for full scale
NEGATIVE_EXPONENT = 240  # of a small integer below zero
FLOAT_RATIO, INTEGER_RATIO, MIN_SIGN_RATIO = 0.999, 0.5, 0.05
WAVE_EXTENSIBLE = 0xFFFE
# Behind the first byte, its tag, the GUID of every format that has one (KSDATAFORMAT_SUBTYPE_WAVEFORMATEX).
_GUID_TAIL = bytes.fromhex("00000000001000800000aa00389b71")
_WAVE_CODINGS: dict[int, Coding] = {1: "s", 3: "f", 6: "alaw", 7: "mulaw"}
# Of these FFmpeg makes noise without a word: it takes the halves of a byte, or the blocks, for others than they are.
_MISREAD_WAVE_CODECS = {0x40: "G.721 ADPCM", 0x5346: "Flash ADPCM"}
# Vorbis: its headers lie where FFmpeg does not look for them, and every packet counts as decoded.
_VORBIS_WAVE_TAGS = (0x566F, 0x674F, 0x6750, 0x6751, 0x676F, 0x6770, 0x6771)
# AAC: where a frame ends its own header says (ADTS), else nothing in a WAV does.
_AAC_WAVE_TAGS = (0xFF, 0x1600, 0x1601, 0x1610, 0x4143, 0x706D, 0xA106)
_AIFC_CODINGS: dict[bytes, tuple[Coding, ByteOrder]] = {
    **dict.fromkeys((b"NONE", b"twos", b"in16", b"in24", b"in32"), ("s", "big")),
    **dict.fromkeys((b"sowt", b"42n1", b"42ni", b"23ni"), ("s", "little")),
    **dict.fromkeys((b"fl32", b"FL32", b"fl64", b"FL64"), ("f", "big")),
}
_CAF_FLOAT, _CAF_LITTLE_ENDIAN = 1, 2
_WORD_BITS = {"s": (16, 24, 32), "f": (32, 64), "alaw": (8,), "mulaw": (8,)}


@dataclass(frozen=True)
class PcmLayout:
    """Plain samples, each in a word of whole bytes."""

    rate_hz: int
    channels: int
    word_bits: int
    """Of the room a sample takes."""
    valid_bits: int
    """Of these, how many the header says are used."""
    coding: Coding
    order: ByteOrder

    @property
    def is_usual(self) -> bool:
        """Whether FFmpeg reads such a WAV as it is meant. Of 24 bits in 32 it makes a floating point number."""
        return self.valid_bits == self.word_bits and self.order == "little"

    @property
    def raw_format(self) -> str:
        """FFmpeg's name of a file of such samples without a header."""
        return f"{self.coding}{self.word_bits}{self.order[0]}e" if self.coding in ("s", "f") else self.coding


def read_wave_format(chunk: bytes, order: ByteOrder) -> PcmLayout | None:
    """Read a `fmt ` chunk (WAVEFORMATEX, WAVEFORMATEXTENSIBLE); None where it is of no plain samples."""
    if len(chunk) < 16:
        return None
    sign = "<" if order == "little" else ">"
    tag, channels, rate_hz, _, block_bytes, valid_bits = struct.unpack(sign + "HHIIHH", chunk[:16])
    if tag == WAVE_EXTENSIBLE and len(chunk) >= 40 and chunk[25:40] == _GUID_TAIL:
        valid_bits, tag = struct.unpack(sign + "H", chunk[18:20])[0] or valid_bits, chunk[24]
    if tag not in _WAVE_CODINGS or not channels or block_bytes % channels:
        return None
    return _checked(PcmLayout(rate_hz, channels, 8 * block_bytes // channels, valid_bits, _WAVE_CODINGS[tag], order))


def name_misread_codec(chunk: bytes, order: ByteOrder, first_bytes: bytes) -> str | None:
    """Return the codec that a `fmt ` chunk names, where FFmpeg is known to decode it wrongly.

    `first_bytes` are those of the samples.
    """
    tag = int.from_bytes(chunk[:2], order)
    if tag in _AAC_WAVE_TAGS:
        header = read_frame_header(first_bytes)
        return None if header is not None and header.is_adts else "AAC without frame headers (ADTS)"
    return "Vorbis" if tag in _VORBIS_WAVE_TAGS else _MISREAD_WAVE_CODECS.get(tag)


def read_caf_format(chunk: bytes) -> PcmLayout | None:
    """Read a `desc` chunk of CAF; None where it is of no plain samples."""
    if len(chunk) < 32 or chunk[8:12] != b"lpcm":
        return None
    rate_hz, _, flags, packet_bytes, frames, channels, bits = struct.unpack(">d4sIIIII", chunk[:32])
    if frames != 1 or not 1 <= rate_hz < 2**31 or not channels or packet_bytes % channels:
        return None
    order: ByteOrder = "little" if flags & _CAF_LITTLE_ENDIAN else "big"
    coding: Coding = "f" if flags & _CAF_FLOAT else "s"
    return _checked(PcmLayout(round(rate_hz), channels, 8 * packet_bytes // channels, bits, coding, order))


def read_aiff_format(chunk: bytes) -> PcmLayout | None:
    """Read a `COMM` chunk of AIFF or AIFF-C; None where it is of no plain samples."""
    if len(chunk) < 18:
        return None
    channels, _, bits, exponent, mantissa = struct.unpack(">HIHHQ", chunk[:18])
    found = _AIFC_CODINGS.get(chunk[18:22] or b"NONE")
    if found is None or not channels or not 16383 <= exponent < 16383 + 31:
        return None
    coding, order = found
    rate_hz = mantissa >> (63 - (exponent - 16383))  # a floating point number of 80 bits
    if coding == "f":
        bits = int(chunk[20:22])
    return _checked(PcmLayout(rate_hz, channels, (bits + 7) // 8 * 8, bits, coding, order))


def _checked(layout: PcmLayout) -> PcmLayout | None:
    """Return the layout where its words can be read: anything else is left to FFmpeg."""
    is_known = layout.word_bits in _WORD_BITS[layout.coding]
    return layout if is_known and 0 < layout.valid_bits <= layout.word_bits else None


def correct_layout(stream: BinaryIO, start: int, end: int, layout: PcmLayout) -> tuple[PcmLayout, str]:
    """Return how the samples in [start, end) really lie, and what the header says wrongly of it ("": nothing)."""
    if layout.word_bits == 32 and layout.valid_bits == 32 and layout.coding in ("s", "f"):
        coding = _read_coding(stream, start, end, layout)
        if coding != layout.coding:
            names = {"s": "integers", "f": "floating point"}
            fault = f"it says {names[layout.coding]}, the samples are {names[coding]}"
            return replace(layout, coding=coding), fault
    if layout.coding == "s" and layout.valid_bits == 16 < layout.word_bits:
        words = measure_words(stream, start, end, layout, layout.valid_bits)
        if not words.is_left_justified(16, layout.word_bits) and not words.is_right_justified(16):
            fault = f"it says {layout.word_bits // 8} bytes a sample, the samples have 2"
            return replace(layout, word_bits=16), fault
    return layout, ""


def _read_coding(stream: BinaryIO, start: int, end: int, layout: PcmLayout) -> Coding:
    """Return what words of 32 bits are: integers or floating point, whichever their header says.

    The exponent of a floating point number stands where an integer has the bits behind its sign. Sound is near zero
    most of the time: there floating point has exponents in the middle, integers all zeros or, below zero, all ones.
    """
    for place in range(start, end, BLOCK_BYTES):
        stream.seek(place)
        block = stream.read(min(BLOCK_BYTES, end - place))
        words = _words(block[: len(block) // 4 * 4], layout).view(np.uint32)
        words = words[words & 0x7FFFFFFF != 0]
        if words.size >= JUDGED_WORDS:
            return _judge_coding(words, layout.coding)
    return layout.coding


def _judge_coding(words: NDArray[np.uint32], said: Coding) -> Coding:
    exponents = words >> 23 & 0xFF
    floats = float(np.mean((exponents >= FLOAT_EXPONENTS[0]) & (exponents <= FLOAT_EXPONENTS[1])))
    if not MIN_SIGN_RATIO < float(np.mean(words >> 31)) < 1 - MIN_SIGN_RATIO:
        return said  # no sound, which is above zero as often as below
    if said == "s" and floats > FLOAT_RATIO:
        return "f"
    if said == "f" and floats < INTEGER_RATIO and float(np.mean(exponents >= NEGATIVE_EXPONENT)) > MIN_SIGN_RATIO:
        return "s"
    return said


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
