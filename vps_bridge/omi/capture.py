"""The capture log: what OMI's webhooks brought, of all users in the order of arrival, kept for a few hours.

One log serves all users because one fsync then serves all that arrived together. Its files are short: each is deleted
when its first record is as old as audio may be kept.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from vps_bridge.omi.capture_file import CaptureFile, StoredRecord, find_damaged, scan
from vps_bridge.omi.records import AUDIO, HEADER_BYTES, NO_KEY, NOBODY, RecordHeader, pack_header

_LOG = structlog.get_logger(__name__)
CAPTURE = "capture"  # below the directory of OMI's files
MAX_FILE_BYTES = 256 * 2**20
FILES_KEPT = 100  # about so many files hold what is kept, so audio goes at most a hundredth of its time too early
MAX_FILE_S, MIN_FILE_S = 300.0, 0.5
KEYS_KEPT_S = 900.0  # OMI tries a chunk again for 36 s
STREAM_BYTES_PER_S = 256_000  # a stream that begins anew begins behind all that came before: faster than any comes in


@dataclass(frozen=True)
class Arrival:
    """What one POST brought."""

    kind: int
    user: bytes
    key: bytes
    sample_rate: int
    arrived_at: float
    body: bytes


class CaptureLog:
    """The log in a private directory. `append` and `erase` are called on one thread each; reading, on any."""

    def __init__(self, directory: Path, keep_s: float, now: float) -> None:
        """Open the log; what a crash left unfinished at its end is cut off. Raises `OSError`."""
        self._directory, self._keep_s = directory, keep_s
        self._file_s = min(MAX_FILE_S, max(MIN_FILE_S, keep_s / FILES_KEPT))
        self._lock = threading.Lock()  # guards the list of files and their indexes
        self._keys: OrderedDict[tuple[bytes, bytes], float] = OrderedDict()
        self._positions: dict[bytes, int] = {}
        self._descriptor: int | None = None
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        self._files = [_open_file(path) for path in sorted(directory.glob("*.log"))]
        self._take_up(now)

    def _take_up(self, now: float) -> None:
        """Mend the latest file; know again where streams ended and which keys were used."""
        for file in self._files[-1:]:
            self._mend(file)
        for file in self._files:
            if now - file.last_at < KEYS_KEPT_S or file is self._files[-1]:
                file.load()
                for record in scan(file.path, file.size):
                    self._note(record.header)

    def _mend(self, file: CaptureFile) -> None:
        """Cut the torn end off a file; erase what an erasure that was cut off left damaged before it."""
        records = list(scan(file.path, file.size))
        damaged = find_damaged(records)
        while records and damaged and records[-1] == damaged[-1]:
            records.pop()
            damaged.pop()
        file.blank(damaged)
        whole = records[-1].offset + HEADER_BYTES + records[-1].header.length if records else 0
        if whole < file.size:
            _LOG.warning("capture_end_cut", bytes=file.size - whole)
            os.truncate(file.path, whole)
            file.size = whole

    def load(self) -> None:
        """Read the indexes of all files: before, a user's bytes in older ones are not known. Raises `OSError`."""
        with self._lock:
            files = list(self._files)
        for file in files:
            file.load()

    def _note(self, header: RecordHeader) -> None:
        if header.kind == AUDIO:
            self._positions[header.user] = max(header.end, self._positions.get(header.user, 0))
        if header.key != NO_KEY:
            self._keys[header.user, header.key] = header.arrived_at

    @property
    def kept_bytes(self) -> int:
        """How much the log holds on disk."""
        with self._lock:
            return sum(file.size for file in self._files)

    def bytes_of(self, user: bytes) -> int:
        """Return how much of a user the log holds, as far as the files were written or read by this process."""
        with self._lock:
            return sum(file.bytes_of.get(user, 0) for file in self._files)

    def append(self, arrivals: Sequence[Arrival]) -> int:
        """Write what arrived, but what has a key that was used; when this returns, it is on disk. One fsync for all.

        Returns how many were new. Raises `OSError` where the disk refuses: then nothing of it is kept.
        """
        headers: list[tuple[RecordHeader, Arrival]] = []
        positions = dict[bytes, int]()
        keys = set[tuple[bytes, bytes]]()
        for arrival in arrivals:
            name = arrival.user, arrival.key
            if arrival.key != NO_KEY and (name in self._keys or name in keys):
                continue
            keys.add(name)
            header = self._head(arrival, positions)
            headers.append((header, arrival))
        if headers:
            self._write(headers)
        self._forget_keys(arrivals[-1].arrived_at if arrivals else 0.0)
        return len(headers)

    def _head(self, arrival: Arrival, positions: dict[bytes, int]) -> RecordHeader:
        position = 0
        if arrival.kind == AUDIO:
            known = positions.get(arrival.user, self._positions.get(arrival.user))
            # Positions of a stream that this process did not see before are behind all that were ever given.
            position = round(arrival.arrived_at * STREAM_BYTES_PER_S) if known is None else known
            positions[arrival.user] = position + len(arrival.body)
        return RecordHeader(
            arrival.kind,
            arrival.sample_rate,
            arrival.arrived_at,
            position,
            len(arrival.body),
            arrival.user,
            arrival.key,
        )

    def _write(self, headers: Sequence[tuple[RecordHeader, Arrival]]) -> None:
        file = self._file_for(headers[0][0].arrived_at)
        descriptor = self._descriptor
        if descriptor is None:
            descriptor = self._descriptor = os.open(file.path, os.O_WRONLY | os.O_NOFOLLOW)
        block = b"".join(
            part for header, arrival in headers for part in (pack_header(header, arrival.body), arrival.body)
        )
        try:
            written = 0
            while written < len(block):
                written += os.pwrite(descriptor, memoryview(block)[written:], file.size + written)
            os.fdatasync(descriptor)
        except OSError:
            # The kernel may keep part of it: nothing of it was promised, and what follows must not stand behind it.
            self._begin_anew(file)
            raise
        with self._lock:
            for header, _ in headers:
                file.note(header, file.size)
                file.size += HEADER_BYTES + header.length
        for header, _ in headers:
            self._note(header)

    def _begin_anew(self, file: CaptureFile) -> None:
        """Give a file up whose end is uncertain; where it can be, its end is cut off."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                os.ftruncate(descriptor, file.size)
            except OSError as error:
                _LOG.warning("capture_end_uncertain", error=error.strerror)
            finally:
                os.close(descriptor)

    def _file_for(self, at: float) -> CaptureFile:
        """Return the file to write into: the latest, unless it has had its time or size, or is given up."""
        last = self._files[-1] if self._files else None
        is_open = last is not None and self._descriptor is not None
        if last is not None and is_open and last.size < MAX_FILE_BYTES and 0 <= at - last.first_at < self._file_s:
            return last
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if last is not None and last.size == 0:  # nothing was ever promised of it
            last.first_at = at
            return last
        number = last.number + 1 if last is not None else 1
        path = self._directory / f"{number:012d}.log"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _sync_directory(self._directory)
        file = CaptureFile(path, number, at, at)
        with self._lock:
            self._files.append(file)
        return file

    def _forget_keys(self, now: float) -> None:
        while self._keys and next(iter(self._keys.values())) < now - KEYS_KEPT_S:
            self._keys.popitem(last=False)

    def records_of(self, user: bytes, since: float = 0.0) -> list[StoredRecord]:
        """Return what a user's POSTs brought from `since` on (Unix time), in order. Raises `OSError`."""
        with self._lock:
            files = [file for file in self._files if file.last_at >= since]
        # Not under the lock: `append` would wait for it, and with it whoever waits for an answer.
        return [record for file in files for record in file.records_of(user) if record.header.arrived_at >= since]

    def users(self) -> set[bytes]:
        """Return whose records the log has, as far as the files were written or read by this process."""
        with self._lock:
            return {user for file in self._files for user in file.bytes_of} - {NOBODY}

    def expire(self, now: float) -> int:
        """Delete the files whose first record has been kept for its time; return how many. Raises `OSError`.

        A file from the future (the clock was set back) counts as written now.
        """
        with self._lock:
            for file in self._files:
                file.first_at = min(file.first_at, now)
            old = [file for file in self._files if now - file.first_at >= self._keep_s]
            for file in old:
                file.path.unlink(missing_ok=True)
            self._files = [file for file in self._files if file not in old]
        if old:
            _sync_directory(self._directory)
        return len(old)

    def erase(self, user: bytes, since: float = 0.0, until: float = math.inf) -> int:
        """Overwrite what of a user arrived within a time (Unix time); return how many records that was.

        Raises `OSError`.
        """
        with self._lock:
            files = [file for file in self._files if file.last_at >= since and file.first_at <= until]
        return sum(file.erase(user, since, until) for file in files)

    def close(self) -> None:
        """Close the file that is being written."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open_file(path: Path) -> CaptureFile:
    known = path.stat()
    first = next(scan(path, known.st_size), None)
    first_at = known.st_mtime if first is None else first.header.arrived_at
    number = int(path.stem) if path.stem.isdigit() else 0
    return CaptureFile(path, number, first_at, known.st_mtime, known.st_size, places=None)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
