"""Where in a body a file ends, by the lengths that its parts state: chunks, boxes and pages.

Recorders and uploaders write several files one after another into one body. FFmpeg reads the first and is silent about
the rest, so that the ends are found here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from mac_agent.byte_window import open_window
from schemas.audio_container import find_container, skip_tags
from schemas.audio_frames import read_frame_header

if TYPE_CHECKING:
    from mac_agent.pcm_layout import ByteOrder

MAX_CHUNKS = 1_000
MAX_BOXES = 200_000  # fragments of a tenth of a second for four hours
UNKNOWN_BYTES = 0x7FFFF000  # a program that writes to a pipe puts the largest number it knows here
PLACEHOLDER_BYTES = 1_000_000_000  # or another large one: nine tenths of a gigabyte are not what was cut off
# Some headers state the length of the whole file where that of the samples belongs.
MAX_HEADER_BYTES = 64
FORMAT_BYTES = 64
# First bytes of files that would pass for the names of chunks.
_FILE_NAMES = {b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b"fLaC", b"OggS"}
_MOVIE_BOXES = (b"moov", b"mdat", b"wide")
# Of Matroska (RFC 9559): the header, what a segment and a cluster consist of, and the two that are entered.
_SEGMENT, _CLUSTER = bytes.fromhex("18538067"), bytes.fromhex("1f43b675")
_ELEMENTS = {
    bytes.fromhex(name)
    for name in (
        *("1a45dfa3", "18538067", "114d9b74", "1549a966", "1654ae6b", "1f43b675", "1c53bb6b", "1254c367", "1043a770"),
        *("1941a469", "ec", "bf", "e7", "5854", "a7", "ab", "a3", "a0", "af"),
    )
}
_OGG_HEAD_BYTES, _OGG_FIRST_PAGE = 27, 2
_OGG_LONG_PAGE = 96_000  # samples; writers end a page after a second
_XING_SEARCHED_BYTES, _XING_FRAMES, _XING_BYTES = 64, 1, 2


@dataclass(frozen=True)
class FileEnd:
    """Where a file in a body ends, and what of it is known to be lost."""

    end: int
    """Position in the body."""
    missing_bytes: int = 0
    """Of those that the file says it has."""
    ignored_bytes: int = 0
    """Within it, that belong to nothing."""
    granules: int = 0
    """Of Ogg: how many samples there are up to the last page, as the pages count them; 0 where that is not clear."""


@dataclass(frozen=True)
class ChunkFile:
    """How a file of chunks is built: each a name of four bytes, a length and a body."""

    header_bytes: int
    length_bytes: int
    order: ByteOrder
    data_name: bytes
    format_name: bytes
    lead_bytes: int = 0
    """In the chunk of the samples, before them."""


@dataclass(frozen=True)
class ChunkEnds:
    """The samples of a file of chunks."""

    file: FileEnd
    data_start: int
    data_end: int
    format_chunk: bytes
    """The one that is nearest before the samples."""
    is_contradicted: bool = False
    """Whether another one before it says something else."""


def chunk_file(container: str, head: bytes) -> ChunkFile:
    """Return how a `wav`, `aiff` or `caf` file is built whose first bytes are `head`."""
    if container == "wav":
        return ChunkFile(12, 4, "big" if head[:4] == b"RIFX" else "little", b"data", b"fmt ")
    if container == "aiff":
        return ChunkFile(12, 4, "big", b"SSND", b"COMM", 8)
    return ChunkFile(8, 8, "big", b"data", b"desc", 4)


def find_chunk_ends(stream: BinaryIO, start: int, limit: int, built: ChunkFile) -> ChunkEnds | None:
    """Find the samples of the file that begins at `start` and reaches no further than `limit`; None without samples."""
    position, format_chunks, long_length = start + built.header_bytes, [b""], 0
    for _ in range(MAX_CHUNKS):
        head = _chunk_head(stream, position, limit, built)
        if head is None:
            return None
        name, length = head
        body = position + 4 + built.length_bytes
        if name == built.data_name:
            claimed = long_length if long_length and length == 2**32 - 1 else length
            ends = _data_ends(stream, body, claimed, limit, built, format_chunks[-1])
            return replace(ends, is_contradicted=len(set(format_chunks[1:])) > 1)
        stream.seek(min(body, limit))
        if name == built.format_name:
            format_chunks.append(stream.read(min(length, FORMAT_BYTES)))
        elif name == b"ds64":  # RF64: the lengths that do not fit into four bytes (EBU Tech 3306)
            long_length = int.from_bytes(stream.read(16)[8:], "little")
        position = body + length + length % 2
    return None


def _data_ends(
    stream: BinaryIO, body: int, claimed: int, limit: int, built: ChunkFile, format_chunk: bytes
) -> ChunkEnds:
    there = limit - body
    is_placeholder = claimed >= UNKNOWN_BYTES or (claimed >= PLACEHOLDER_BYTES and 10 * there < claimed)
    data_start = body + built.lead_bytes
    if built.data_name == b"SSND":
        stream.seek(min(body, limit))
        data_start += int.from_bytes(stream.read(4), "big")  # where the first sample is aligned to blocks
    if is_placeholder or claimed == 0 or claimed > there:
        missing = 0 if is_placeholder or claimed == 0 else claimed - there
        ends = FileEnd(limit, missing if missing > MAX_HEADER_BYTES else 0)
        return ChunkEnds(ends, data_start, limit, format_chunk)
    end, more = _skip_chunks(stream, body + claimed, limit, built)
    return ChunkEnds(FileEnd(end, 0, more), data_start, body + claimed, format_chunk)


def _skip_chunks(stream: BinaryIO, position: int, limit: int, built: ChunkFile) -> tuple[int, int]:
    """Return where the chunks behind the samples end, and how many bytes of them are samples nobody reads."""
    more = 0
    for _ in range(MAX_CHUNKS):
        padded = position % 2 if built.length_bytes == 4 else 0
        for begin in dict.fromkeys((position + padded, position)):  # not every program pads
            head = _chunk_head(stream, begin, limit, built)
            if head is None or head[0] in _FILE_NAMES:
                continue
            if begin + 4 + built.length_bytes + head[1] <= limit:
                position = begin + 4 + built.length_bytes + head[1]
                more += head[1] if head[0] == built.data_name else 0
                break
        else:
            break
    return (limit if position + 1 == limit else position), more


def _chunk_head(stream: BinaryIO, position: int, limit: int, built: ChunkFile) -> tuple[bytes, int] | None:
    stream.seek(min(position, limit))
    head = stream.read(min(4 + built.length_bytes, max(0, limit - position)))
    if len(head) < 4 + built.length_bytes or not all(0x20 <= byte < 0x7F for byte in head[:4]):
        return None
    return head[:4], int.from_bytes(head[4:], built.order)


def find_boxes_end(stream: BinaryIO, start: int, limit: int) -> FileEnd:
    """Find where the MP4 or QuickTime file that begins at `start` ends: before a second `ftyp` or a second movie."""
    seen, position = set[bytes](), start
    movies = [begin for name, begin, _ in _boxes(stream, start, limit) if name == b"moov"]
    for name, begin, end in _boxes(stream, start, limit):
        is_whole = {b"moov", b"mdat"} <= seen and b"moof" not in seen
        if begin > start and (name == b"ftyp" or (is_whole and name in _MOVIE_BOXES and movies[-1] >= begin)):
            return FileEnd(begin)
        if end > limit:
            return FileEnd(limit, missing_bytes=end - limit)
        seen.add(name)
        position = end
    return FileEnd(position if b"moov" in seen else limit)  # what FFmpeg makes of half a movie, it may say itself


def _boxes(stream: BinaryIO, start: int, limit: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, begin and end of each box (ISO 14496-12, 4.2) up to the first bytes that are none."""
    position = start
    for _ in range(MAX_BOXES):
        stream.seek(min(position, limit))
        head = stream.read(max(0, min(16, limit - position)))
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1 and len(head) == 16:
            size = int.from_bytes(head[8:], "big")
        elif size == 0 and name == b"mdat":  # up to the end of the file
            size = limit - position
        if size < 8 or not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in name):
            return
        yield name, position, position + size
        position += size


def find_pages_end(stream: BinaryIO, start: int, limit: int) -> FileEnd:
    """Find where the Ogg file that begins at `start` ends: at a first page of a stream behind any other page."""
    position, ignored, is_inside = start, 0, False
    count = _GranuleCount()
    while position < limit:
        stream.seek(min(position, limit))
        head = stream.read(min(_OGG_HEAD_BYTES, limit - position))
        if head[:4] != b"OggS"[: len(head)]:
            found = find_bytes(stream, b"OggS", position + 1, limit)
            ignored += (limit if found is None else found) - position
            position = limit if found is None else found
            continue
        sizes = stream.read(head[26]) if len(head) == _OGG_HEAD_BYTES else b""
        if len(head) < _OGG_HEAD_BYTES or len(sizes) < head[26]:
            return FileEnd(limit, missing_bytes=1, ignored_bytes=ignored)
        is_first = bool(head[5] & _OGG_FIRST_PAGE)
        if is_first and is_inside:
            return FileEnd(position, ignored_bytes=ignored, granules=count.total)
        is_inside = is_inside or not is_first
        count.take(head)
        end = position + _OGG_HEAD_BYTES + len(sizes) + sum(sizes)
        if end > limit:
            return FileEnd(limit, end - limit, ignored)
        position = end
    return FileEnd(limit, ignored_bytes=ignored, granules=count.total)


class _GranuleCount:
    """How many samples the pages of one stream count: FFmpeg drops a page with a wrong checksum without a word."""

    def __init__(self) -> None:
        self._serials = set[bytes]()
        self._first, self._last = 0, 0

    def take(self, head: bytes) -> None:
        granule = int.from_bytes(head[6:14], "little", signed=True)  # of the last sample that ends in the page
        self._serials.add(head[14:18])
        if granule > 0:
            self._first, self._last = self._first or granule, granule

    @property
    def total(self) -> int:
        """Those of the first page count too, unless it is of a broadcast that began long before."""
        is_late = self._first > _OGG_LONG_PAGE
        return self._last - (self._first if is_late else 0) if len(self._serials) == 1 else 0


def find_elements_end(stream: BinaryIO, start: int, limit: int) -> FileEnd:
    """Find where the Matroska or WebM file that begins at `start` ends: with its last element."""
    position, ignored, segment_end = start, 0, 0
    while position < limit:
        name, body, size = _element(stream, position, limit)
        if name not in _ELEMENTS:
            cluster = find_bytes(stream, _CLUSTER, position + 1, limit)
            if cluster is None:
                return FileEnd(position, 0, ignored)
            ignored += cluster - position
            position = cluster
        elif name in (_SEGMENT, _CLUSTER):
            if name == _SEGMENT and size is not None:
                segment_end = body + size
            position = body
        elif size is None or body + size > limit:
            return FileEnd(limit, max(segment_end, body + (size or 0), limit + 1) - limit, ignored)
        else:
            position = body + size
    return FileEnd(limit, max(0, segment_end - limit), ignored)


def _element(stream: BinaryIO, position: int, limit: int) -> tuple[bytes, int, int | None]:
    """Return name, begin of the body and size (None: it is not said) of an EBML element (RFC 8794)."""
    stream.seek(min(position, limit))
    head = stream.read(min(12, limit - position)).ljust(12, b"\0")
    name_bytes = 9 - head[0].bit_length()
    name = head[: min(name_bytes, 4)]
    first = head[len(name)]
    size_bytes = 9 - first.bit_length()
    if name_bytes > 4 or size_bytes > 8:
        return b"", position, None
    size = int.from_bytes(head[len(name) : len(name) + size_bytes], "big") - (1 << (7 * size_bytes))
    is_said = size != (1 << (7 * size_bytes)) - 1
    return name, position + len(name) + size_bytes, size if is_said else None


@dataclass(frozen=True)
class MpegEnds:
    """Where an MP3 file ends by its Xing or Info frame."""

    frames_end: int
    file_end: int
    """Behind the tags that follow the frames."""


def find_mpeg_ends(stream: BinaryIO, start: int, limit: int) -> MpegEnds | None:
    """Find where the MP3 file that begins at `start` ends; None where it does not state how many frames it has.

    One that states no bytes, or more than there are, ends at `limit`. Some programs do not count the first frame.
    """
    begin = skip_tags(stream, start)
    stream.seek(begin)
    frame = stream.read(_XING_SEARCHED_BYTES)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    flags = int.from_bytes(frame[at + 4 : at + 8], "big") if at >= 0 else 0
    if not flags & _XING_FRAMES:
        return None
    stated = int.from_bytes(frame[at + 12 : at + 16], "big") if flags & _XING_BYTES else limit - begin
    header = read_frame_header(frame)
    for frames_end in (begin + stated, begin + stated + (header.bytes if header else 0)):
        file_end = _skip_end_tags(stream, min(frames_end, limit), limit)
        if file_end == limit or find_container(open_window(stream, file_end, limit)) is not None:
            return MpegEnds(min(frames_end, limit), file_end)
    return None


def _skip_end_tags(stream: BinaryIO, position: int, limit: int) -> int:
    """Return where the tags end that stand behind the frames of an MP3 file: APEv2, and ID3v1 of 128 bytes."""
    stream.seek(min(position, limit))
    head = stream.read(16)
    if head.startswith(b"APETAGEX"):
        position += 32 + int.from_bytes(head[12:16], "little")  # what it says includes the footer, not the header
        stream.seek(min(position, limit))
        head = stream.read(3)
    return min(limit, position + 128 if head.startswith(b"TAG") else position)


def find_bytes(stream: BinaryIO, wanted: bytes, start: int, limit: int) -> int | None:
    """Return the first position of `wanted` in [start, limit), read in blocks that grow."""
    block_bytes, position = 1 << 16, start
    while position + len(wanted) <= limit:
        stream.seek(min(position, limit))
        block = stream.read(min(block_bytes, limit - position))
        found = block.find(wanted)
        if found >= 0:
            return position + found
        if len(block) < len(wanted):
            return None
        position += len(block) - len(wanted) + 1
        block_bytes = min(2 * block_bytes, 1 << 22)
    return None
