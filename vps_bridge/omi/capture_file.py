"""One file of the capture log: where each user's records lie in it, and where the last whole record ends."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vps_bridge.omi.records import (
    ERASED,
    HEADER_BYTES,
    NO_KEY,
    NOBODY,
    RecordHeader,
    is_whole,
    pack_header,
    unpack_header,
)


@dataclass(frozen=True)
class StoredRecord:
    """A record, and where it is."""

    header: RecordHeader
    path: Path
    offset: int
    """Of its header in the file."""

    def read(self, start: int = 0, end: int | None = None) -> bytes:
        """Return bytes `start` to `end` of the payload. Raises `FileNotFoundError` where its time is over."""
        stop = self.header.length if end is None else min(end, self.header.length)
        with self.path.open("rb") as file:
            file.seek(self.offset + HEADER_BYTES + start)
            return file.read(max(0, stop - start))


@dataclass
class CaptureFile:
    """A file of the log, with an index: eight bytes for each record."""

    path: Path
    number: int
    first_at: float
    """When its first record arrived (Unix time): the file is deleted so long after that as audio may be kept."""
    last_at: float
    size: int = 0
    places: dict[bytes, array[int]] | None = field(default_factory=dict)
    """By user the offsets of the records; None: not read yet."""
    bytes_of: dict[bytes, int] = field(default_factory=dict)

    def note(self, header: RecordHeader, offset: int) -> None:
        """Add a record to the index."""
        if self.places is not None:
            self.places.setdefault(header.user, array("Q")).append(offset)
        self.bytes_of[header.user] = self.bytes_of.get(header.user, 0) + header.length
        self.last_at = max(self.last_at, header.arrived_at)

    def load(self) -> None:
        """Read the index where it is not read yet. Raises `OSError`."""
        if self.places is None:
            found = CaptureFile(self.path, self.number, self.first_at, self.last_at, self.size)
            for record in scan(self.path, self.size):
                found.note(record.header, record.offset)
            self.places, self.bytes_of, self.last_at = found.places, found.bytes_of, found.last_at

    def records_of(self, user: bytes) -> Iterator[StoredRecord]:
        """Yield a user's records in the order in which they came. Raises `OSError`."""
        self.load()
        offsets = (self.places or {}).get(user)
        if not offsets:
            return
        with self.path.open("rb") as file:
            for offset in list(offsets):
                file.seek(offset)
                header = unpack_header(file.read(HEADER_BYTES))
                if header is not None and header.user == user:
                    yield StoredRecord(header, self.path, offset)

    def erase(self, user: bytes, since: float, until: float) -> int:
        """Overwrite what a user's records of a time of arrival hold, durably; return how many they were.

        Raises `OSError`.
        """
        records = [one for one in self.records_of(user) if since <= one.header.arrived_at <= until]
        if not records:
            return 0
        self.blank(records)
        self._forget(user, records)
        return len(records)

    def blank(self, records: Sequence[StoredRecord]) -> None:
        """Overwrite records, durably: they are whole afterwards, and hold nothing. Raises `OSError`."""
        with self.path.open("r+b") as file:
            for record in records:
                old, nothing = record.header, bytes(record.header.length)
                header = RecordHeader(ERASED, 0, old.arrived_at, 0, old.length, NOBODY, NO_KEY)
                file.seek(record.offset)
                file.write(pack_header(header, nothing) + nothing)
            file.flush()
            os.fsync(file.fileno())

    def _forget(self, user: bytes, records: Sequence[StoredRecord]) -> None:
        gone = {record.offset for record in records}
        places = self.places or {}
        kept = array("Q", (offset for offset in places.pop(user, ()) if offset not in gone))
        if kept:
            places[user] = kept
            self.bytes_of[user] -= sum(record.header.length for record in records)
        else:
            self.bytes_of.pop(user, None)


def scan(path: Path, size: int) -> Iterator[StoredRecord]:
    """Yield the records of a file, whole or not, up to where none begins. Raises `OSError`."""
    offset = 0
    with path.open("rb") as file:
        while offset + HEADER_BYTES <= size:
            file.seek(offset)
            header = unpack_header(file.read(HEADER_BYTES))
            if header is None or offset + HEADER_BYTES + header.length > size:
                return
            yield StoredRecord(header, path, offset)
            offset += HEADER_BYTES + header.length


def find_damaged(records: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Return the records that do not have the checksum they state. Raises `OSError`."""
    damaged = []
    for record in records:
        with record.path.open("rb") as file:
            file.seek(record.offset)
            data = file.read(HEADER_BYTES)
            if not is_whole(data, file.read(record.header.length)):
                damaged.append(record)
    return damaged
