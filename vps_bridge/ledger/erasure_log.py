"""What was erased, kept beside the databases, so that restoring an older backup erases it again.

A line an erasure: what kind, when, and a digest of the id under the ledger's own random key. So the file holds no id
and no name, and without the ledger nobody can check a guess against it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

LOG_NAME = "erasures.log"
LOG_NAMES = "erasures*.log"  # also the copies of what servers keep
LOG_REMEDY = (
    "Put your copy of the log in its place (docs/backup.md). Without one, whoever restores an older backup has to "
    "erase by hand what those lines said; delete them from the file once that is settled."
)
_HEADER = "omi-diarization-erasures 1"
_LOG_ID = re.compile(rf"{_HEADER} ([0-9a-f]{{16}})")
_DIGEST_BYTES = 16
_FIELDS = 3


class Erased(StrEnum):
    """What is erased."""

    CONVERSATION = "conversation"
    AUDIO = "audio"
    """Of a conversation; its labels stay."""
    PERSON = "person"
    AGENT = "agent"
    PERMISSION = "permission"
    """Of an agent, to be given audio."""


@dataclass(frozen=True)
class Erasure:
    """One line."""

    kind: Erased
    at_s: int
    """Unix time."""
    digest: str


@dataclass(frozen=True)
class ErasureHistory:
    """A whole log."""

    log_id: str
    """Random: it tells this log from one that was begun anew. Empty: there is none, or its first line is damaged."""
    erasures: tuple[Erasure, ...]
    unreadable: int = 0
    """Lines that are damaged, or cut off by a power cut: what they said is not known."""


class Erasures(Protocol):
    """Where erasures are noted: a file, or a table of the server that keeps the ledger."""

    def note(self, connection: Connection, kind: Erased, *ids: str) -> None:
        """Note an erasure before what is to be erased goes, within the transaction that does it."""

    def digest(self, kind: Erased, *ids: str) -> str:
        """Return what the log has of these ids."""


class ErasureLog:
    """The log of one ledger. Every process that has the ledger open may add to it."""

    def __init__(self, root: Path, ledger_id: str, name: str = LOG_NAME) -> None:
        """Use the log of this name below `root`; the first bridge begins it."""
        self._path, self._key = root / name, ledger_id.encode()

    def begin(self) -> None:
        """Make the file, where there is none: so a missing one means that it was lost."""
        if not self._path.exists():
            self._append("")

    def note(self, _connection: Connection | None, kind: Erased, *ids: str) -> None:
        """Put an erasure on disk, before what is to be erased goes. Raises OSError where the disk fails."""
        self.append([Erasure(kind, int(time.time()), self.digest(kind, *ids))])

    def append(self, erasures: Iterable[Erasure]) -> None:
        """Put erasures on disk. Raises OSError where the disk fails."""
        lines = "".join(f"{one.kind} {one.at_s} {one.digest}\n" for one in erasures)
        if lines:
            self._append(lines)

    def _append(self, lines: str) -> None:
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            head = f"{_HEADER} {secrets.token_hex(8)}\n" if size == 0 else _end_of_line(descriptor, size)
            os.write(descriptor, (head + lines).encode())  # one write to the end: lines of two processes do not mix
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def digest(self, kind: Erased, *ids: str) -> str:
        """Return what the log has of these ids."""
        return digest_erased(self._key, kind, *ids)

    def read(self) -> ErasureHistory:
        """Return all of it; nothing where there is none."""
        return read_erasures(self._path)


def digest_erased(key: bytes, kind: str, *ids: str) -> str:
    """Return what a log has of these ids, under its ledger's key."""
    said = "\0".join((kind, *ids)).encode()
    return hashlib.blake2b(said, key=key, digest_size=_DIGEST_BYTES).hexdigest()


def read_erasures(path: Path) -> ErasureHistory:
    """Return what a log holds; of what cannot be read how much that is."""
    try:
        text = path.read_bytes().decode("ascii", "replace")
    except FileNotFoundError:
        return ErasureHistory("", ())
    head, *lines = text.removesuffix("\n").split("\n")
    named, found = _LOG_ID.fullmatch(head), [_parse(line) for line in lines]
    readable = tuple(erasure for erasure in found if erasure is not None)
    unreadable = len(found) - len(readable) + (named is None)
    return ErasureHistory(named[1] if named else "", readable, unreadable)


def find_log_damage(root: Path) -> list[str]:
    """Say of each log below a bridge's directory what cannot be read of it."""
    damage = []
    for path in sorted(root.glob(LOG_NAMES)):
        try:
            unreadable = read_erasures(path).unreadable
        except OSError as error:
            damage.append(f"{path}: {error.strerror}")
        else:
            if unreadable:
                damage.append(f"{path}: {unreadable} of its lines cannot be read")
    return damage


def _parse(line: str) -> Erasure | None:
    words = line.split()
    if len(words) != _FIELDS or words[0] not in set(Erased) or len(words[2]) != 2 * _DIGEST_BYTES:
        return None
    return Erasure(Erased(words[0]), int(words[1]), words[2]) if words[1].isdigit() else None


def _end_of_line(descriptor: int, size: int) -> str:
    """Return what ends a line that a power cut left unfinished."""
    return "" if os.pread(descriptor, 1, size - 1) == b"\n" else "\n"
