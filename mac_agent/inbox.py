"""Audio on its way into the worker: a private directory, empty at every start.

Wiped at start (a crash of the agent costs work, never audio: the bridge still has it), and every file is
unlinked as soon as its job is over. Names are counters of our own: no id from outside touches the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.private_files import replace_file
from mac_agent.byte_ranges import Range, add_range, missing_ranges

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600
# What backup programs look for (bford.info/cachedir); Time Machine passes over ~/Library/Caches by itself.
CACHE_TAG = "CACHEDIR.TAG"
CACHE_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n# audio on its way through; never to be kept\n"
MARKER = "omi-agent-inbox"  # only a directory that carries it, or an empty one, is ever wiped


class InboxError(Exception):
    """Something about the inbox that a person must put right; the message names the remedy."""


class PartRefused(Exception):
    """A part of audio that is not what was asked for. It is asked for again."""


@dataclass
class InboxFile:
    """One chunk as far as it has come. Owned by the inbox; read by anyone."""

    path: Path
    total_bytes: int
    sha256: str
    opened_s: float
    """On the monotonic clock."""
    held: list[Range] = field(default_factory=list)

    @property
    def missing(self) -> list[Range]:
        """Byte ranges still to come."""
        return missing_ranges(self.held, self.total_bytes)

    @property
    def is_complete(self) -> bool:
        """Whether every byte is here (not whether they are the right ones: see ``Inbox.verify``)."""
        return not self.missing

    @property
    def received_bytes(self) -> int:
        """How many bytes are here."""
        return sum(end - start for start, end in self.held)


class Inbox:
    """The directory. Used by one thread of one process."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Make the directory, private and empty.

        Raises:
            InboxError: it holds things that no inbox put there, or cannot be written.
        """
        self._directory, self._clock = directory, clock
        self._files: dict[int, InboxFile] = {}
        self._next = 0
        try:
            _wipe(directory)
        except OSError as error:
            raise InboxError(
                f"{directory} cannot be made private and empty ({error.strerror}). Check its owner and the disk, "
                "or set OMI_INBOX_DIR."
            ) from error

    def open_file(self, total_bytes: int, sha256: str) -> int:
        """Make room for a chunk and return its handle. Raises OSError where the disk is full."""
        self._next += 1
        path = self._directory / f"{self._next}.audio"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_FILE)
        os.close(descriptor)
        self._files[self._next] = InboxFile(path, total_bytes, sha256, self._clock())
        return self._next

    def free_bytes(self) -> int:
        """Return how much room the disk has."""
        return shutil.disk_usage(self._directory).free

    def file(self, handle: int) -> InboxFile:
        """Return what is known of a chunk."""
        return self._files[handle]

    def write_part(self, handle: int, byte_offset: int, audio: bytes, part_sha256: str) -> bool:
        """Check a part and write it in its place.

        Returns:
            Whether it brought bytes that were not here yet.

        Raises:
            PartRefused: its bytes are not those of its hash, or reach past the end of the chunk.
            OSError: the disk is full or gone.
        """
        entry = self._files[handle]
        end = byte_offset + len(audio)
        if not audio or end > entry.total_bytes:
            raise PartRefused(f"a part of {len(audio)} bytes at {byte_offset} of {entry.total_bytes}")
        if hashlib.sha256(audio).hexdigest() != part_sha256:
            raise PartRefused("a part whose bytes do not have its sha256")
        held = add_range(entry.held, (byte_offset, end))
        if held == entry.held:
            return False
        with entry.path.open("r+b") as stream:
            stream.seek(byte_offset)
            stream.write(audio)
        entry.held = held
        return True

    def verify(self, handle: int) -> bool:
        """Say whether a complete chunk has its sha256; if not, all of it is missing again."""
        entry = self._files[handle]
        with entry.path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found == entry.sha256:
            return True
        entry.held = []
        return False

    def drop(self, handle: int) -> None:
        """Unlink a chunk; does nothing where it is gone."""
        entry = self._files.pop(handle, None)
        if entry is not None:
            entry.path.unlink(missing_ok=True)

    def expired(self, max_age_s: float) -> list[int]:
        """Return the handles of chunks older than `max_age_s` on this machine's own clock."""
        oldest_s = self._clock() - max_age_s
        return [handle for handle, entry in self._files.items() if entry.opened_s < oldest_s]

    def close(self) -> None:
        """Unlink everything."""
        for handle in list(self._files):
            self.drop(handle)


def _wipe(directory: Path) -> None:
    """Empty the directory, unless it may hold other files: a wrong setting must not delete a home directory."""
    directory.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
    marker = directory / MARKER
    entries = list(directory.iterdir())
    if entries and not marker.is_file():
        raise InboxError(
            f"{directory} is not empty and is no inbox of an agent; nothing in it was touched. Set OMI_INBOX_DIR to a "
            "directory of its own."
        )
    directory.chmod(PRIVATE_DIRECTORY)
    for entry in entries:
        if entry in (marker, directory / CACHE_TAG):  # not even these are made anew on a full disk
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if not marker.is_file():
        replace_file(marker, b"")
    tag = directory / CACHE_TAG
    if not tag.is_file():
        replace_file(tag, CACHE_SIGNATURE)
