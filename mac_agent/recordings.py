"""The recordings in the body of a chunk: usually one, but some publishers write several files one after another."""

from __future__ import annotations

import io
import re
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from mac_agent.audio_container import ChosenContainer, choose_container
from mac_agent.byte_window import open_window
from mac_agent.errors import AudioError
from mac_agent.file_ends import (
    ChunkEnds,
    ChunkFile,
    FileEnd,
    chunk_file,
    find_boxes_end,
    find_bytes,
    find_chunk_ends,
    find_elements_end,
    find_mpeg_ends,
    find_pages_end,
)
from mac_agent.pcm_layout import (
    PcmLayout,
    correct_layout,
    measure_words,
    name_misread_codec,
    read_aiff_format,
    read_caf_format,
    read_wave_format,
)
from schemas.audio import RAW_ENCODINGS, RAW_SAMPLE_BYTES
from schemas.audio_container import skip_tags
from schemas.failure import FailureCode

MAX_RECORDINGS = 10_000  # two seconds each for more than four hours; opening a file takes a millisecond
HEAD_BYTES = 96
WIDE_BITS, RIGHT_JUSTIFIED_BITS = 32, (16, 24)  # what programs leave at the lower end without saying so

# What no file holds in its middle: bytes to look for, where they stand in a file, and what its first bytes match.
_BEGINS = {
    "wav": (b"WAVE", 8, re.compile(rb"(RIFF|RIFX|RF64|BW64).{4}WAVE", re.DOTALL)),
    "aiff": (b"AIF", 8, re.compile(rb"FORM.{4}AIF[FC]", re.DOTALL)),
    "flac": (b"fLaC", 0, re.compile(rb"fLaC[\x00\x80]\x00\x00\x22", re.DOTALL)),
    "caf": (b"caff", 0, re.compile(rb"caff\x00[\x01\x02]\x00\x00desc", re.DOTALL)),
    "matroska": (b"\x1aE\xdf\xa3", 0, re.compile(rb"\x1aE\xdf\xa3.{1,80}\x42\x82.(webm|matroska)", re.DOTALL)),
}
# And where the frames of MP3 and AAC end at the latest, of files that several of may lie within one another.
_FOLLOWERS = _BEGINS | {
    "ogg": (b"OggS\x00\x02", 0, re.compile(rb"OggS\x00\x02.{12}\x00{4}", re.DOTALL)),
    "mov": (b"ftyp", 4, re.compile(rb"\x00\x00.{2}ftyp[ -~]{4}", re.DOTALL)),
}
# A sync word of eleven bits is found in any bytes: these are read behind a file of their own kind only.
_WEAK = {"mp3", "aac"}
# Their length is guessed from their bytes, and so never longer than these.
_STREAMS = {"mp3", "aac", "wav", "caf", "aiff", "ogg"}


@dataclass(frozen=True, eq=False)
class RecordingSource:
    """One file, or headerless samples, within the body of a chunk."""

    stream: BinaryIO
    container: str
    """FFmpeg's name."""
    options: dict[str, str]
    size_bytes: int
    missing_bytes: int = 0
    """Of those that its header says it has."""
    states_length: bool = False
    """Whether the length that FFmpeg names is read from it, not guessed from its size."""
    granules: int = 0
    """Of Ogg: see `FileEnd`."""
    shift_bits: int = 0
    """By how much integer samples lie too low in their words."""
    is_shift_said: bool = True
    """Whether the header says so."""
    header_fault: str = ""
    """What the header says of the samples and they are not."""


@dataclass(frozen=True)
class Body:
    """Everything in the body of a chunk."""

    recordings: tuple[RecordingSource, ...]
    ignored_bytes: int
    """That belong to none of them."""
    cut_bytes: int = 0
    """Of headerless samples: those of a last one that is not whole."""


def find_recordings(stream: BinaryIO, encoding: str, sample_rate: int | None, channels: int | None) -> Body:
    """Find the recordings of a body, in order.

    Args:
        stream: seekable.
        encoding: one of `RAW_ENCODINGS`, or anything else for files.
        sample_rate: of a raw encoding, Hz.
        channels: of a raw encoding.

    Raises:
        AudioError: the body is empty, or does not begin as any file that is read here.
    """
    chosen = choose_container(stream, encoding, sample_rate, channels)
    size = stream.seek(0, io.SEEK_END)
    if encoding in RAW_ENCODINGS:
        cut_bytes = size % (RAW_SAMPLE_BYTES[encoding] * (channels or 1))  # of the samples of one moment
        return Body((RecordingSource(stream, chosen.name, chosen.options, size),), 0, cut_bytes)
    search = _Search(stream, size)
    recordings: list[RecordingSource] = []
    ignored = position = 0
    while len(recordings) < MAX_RECORDINGS:
        start = position + chosen.start_byte
        recording, end = search.take(chosen.name, chosen.options, start)
        recordings.append(recording)
        ignored += chosen.ignored_bytes + end.ignored_bytes
        follower, position = search.follow(chosen.name, end.end, start)
        ignored += position - end.end
        if follower is None:
            break
        chosen = follower
    return Body(tuple(recordings), ignored + size - position)


@dataclass
class _Search:
    stream: BinaryIO
    size: int
    begins: dict[str, list[int]] = field(default_factory=dict)
    """By container, where files begin; filled when one is met first."""

    def take(self, container: str, options: dict[str, str], start: int) -> tuple[RecordingSource, FileEnd]:
        """Return the recording that begins at `start`, and where it ends."""
        limit = self._limit(container, start)
        if container in ("wav", "aiff", "caf"):
            return self._take_chunks(container, options, start, limit)
        if container == "mp3":
            return self._take_frames(options, start, limit)
        end = FileEnd(limit)
        if container == "mov":
            end = find_boxes_end(self.stream, start, limit)
        elif container == "ogg":
            end = find_pages_end(self.stream, start, limit)
        elif container == "matroska":
            end = find_elements_end(self.stream, start, limit)
        return self._recording(container, options, start, end), end

    def follow(self, container: str, end: int, start: int) -> tuple[ChosenContainer | None, int]:
        """Return what begins behind a recording, and where; None, and the end of it, where nothing does."""
        limit = self._limit(container, start)
        for position in dict.fromkeys((end, limit)):
            if position >= self.size:
                break
            try:
                follower = choose_container(open_window(self.stream, position, self.size), "auto", None, None)
            except AudioError:
                continue
            if follower.name not in _WEAK or follower.name == container:
                return follower, position
        return None, end

    def _take_chunks(
        self, container: str, options: dict[str, str], start: int, limit: int
    ) -> tuple[RecordingSource, FileEnd]:
        self.stream.seek(start)
        built = chunk_file(container, self.stream.read(HEAD_BYTES))
        ends = find_chunk_ends(self.stream, start, limit, built)
        if ends is None:
            end = FileEnd(limit)
            return self._recording(container, options, start, end), end
        self.stream.seek(ends.data_start)
        _refuse_misread(container, ends, built, self.stream.read(HEAD_BYTES))
        if container == "wav":
            layout = read_wave_format(ends.format_chunk, built.order)
        else:
            layout = read_caf_format(ends.format_chunk) if container == "caf" else read_aiff_format(ends.format_chunk)
        if layout is None:
            packets = self._recording(container, options, start, ends.file)
            return replace(packets, states_length=container == "caf"), ends.file  # CAF counts the samples of packets
        return self._take_samples(container, options, start, ends, layout), ends.file

    def _take_frames(self, options: dict[str, str], start: int, limit: int) -> tuple[RecordingSource, FileEnd]:
        """Return an MP3 file, without what follows it: FFmpeg would guess the length of both from their bytes."""
        ends = find_mpeg_ends(self.stream, start, limit)
        if ends is None:
            return self._recording("mp3", options, start, FileEnd(limit)), FileEnd(limit)
        frames = self._recording("mp3", options, start, FileEnd(ends.frames_end))
        return replace(frames, states_length=True), FileEnd(ends.file_end)

    def _take_samples(
        self, container: str, options: dict[str, str], start: int, ends: ChunkEnds, layout: PcmLayout
    ) -> RecordingSource:
        """Return plain samples, read as their header means them where FFmpeg would read them in another way."""
        layout, fault = correct_layout(self.stream, ends.data_start, ends.data_end, layout)
        shift_bits, is_said, is_integer = 0, True, layout.coding == "s"
        if is_integer and layout.valid_bits < layout.word_bits:
            words = measure_words(self.stream, ends.data_start, ends.data_end, layout, layout.valid_bits)
            is_left = words.is_left_justified(layout.valid_bits, layout.word_bits)
            if not is_left and words.is_right_justified(layout.valid_bits):
                shift_bits = layout.word_bits - layout.valid_bits
        elif is_integer and layout.word_bits == WIDE_BITS:
            words = measure_words(self.stream, ends.data_start, ends.data_end, layout, max(RIGHT_JUSTIFIED_BITS))
            fits = [bits for bits in RIGHT_JUSTIFIED_BITS if words.is_right_justified(bits)]
            if fits and not words.is_left_justified(fits[0], WIDE_BITS):
                shift_bits, is_said = WIDE_BITS - fits[0], False
        if container == "wav" and layout.is_usual and not shift_bits and not fault:
            return self._recording(container, options, start, ends.file)
        return RecordingSource(
            stream=open_window(self.stream, ends.data_start, ends.data_end),
            container=layout.raw_format,
            options={"sample_rate": str(layout.rate_hz), "ch_layout": f"{layout.channels}c"},
            size_bytes=ends.file.end - start,
            missing_bytes=ends.file.missing_bytes,
            shift_bits=shift_bits,
            is_shift_said=is_said,
            header_fault=fault,
        )

    def _recording(self, container: str, options: dict[str, str], start: int, end: FileEnd) -> RecordingSource:
        window = open_window(self.stream, start, end.end)
        return RecordingSource(
            window,
            container,
            options,
            end.end - start,
            end.missing_bytes,
            states_length=container not in _STREAMS,
            granules=end.granules,
        )

    def _limit(self, container: str, start: int) -> int:
        """Return how far the file that begins at `start` reaches at most: frames may go on until any file begins."""
        if container in _BEGINS:
            return self._next_begin(container, start)
        if container not in _WEAK:
            return self.size
        frames = skip_tags(self.stream, start)
        return min(self._next_begin(kind, frames) for kind in _FOLLOWERS)

    def _next_begin(self, container: str, start: int) -> int:
        """Return where the next file of this kind begins, or the end of the body."""
        if container not in self.begins:
            self.begins[container] = self._find_begins(container, start + 1)
        begins = self.begins[container]
        index = bisect_left(begins, start + 1)
        return begins[index] if index < len(begins) else self.size

    def _find_begins(self, container: str, position: int) -> list[int]:
        wanted, offset, pattern = _FOLLOWERS[container]
        found: list[int] = []
        while len(found) < MAX_RECORDINGS:
            at = find_bytes(self.stream, wanted, position, self.size)
            if at is None:
                break
            self.stream.seek(max(0, at - offset))
            if pattern.match(self.stream.read(HEAD_BYTES)):
                found.append(at - offset)
            position = at + 1
        return found


def _refuse_misread(container: str, ends: ChunkEnds, built: ChunkFile, first_bytes: bytes) -> None:
    """Raise where FFmpeg, or anybody, would have to guess what the samples are."""
    name = built.format_name.decode()
    if ends.is_contradicted:
        msg = (
            f"The {container.upper()} has two `{name}` chunks that contradict each other. Write one, and publish again."
        )
        raise AudioError(FailureCode.AUDIO_UNDECODABLE, msg)
    codec = name_misread_codec(ends.format_chunk, built.order, first_bytes) if container == "wav" else None
    if codec is not None:
        msg = (
            f"The WAV holds {codec}, which cannot be decoded here. Publish another format, such as FLAC or 16 bit PCM."
        )
        raise AudioError(FailureCode.AUDIO_UNDECODABLE, msg)
