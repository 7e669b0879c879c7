"""What was erased, kept beside the databases, so that restoring an older backup erases it again.

A line an erasure: what kind, when, and a digest of the id under the ledger's own random key. So the file holds no id
and no name, and without the ledger nobody can check a guess against it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

LOG_NAME = "erasures.log"
_HEADER = "omi-diarization-erasures 1"
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
    """Random: it tells this log from one that was begun anew."""
    erasures: tuple[Erasure, ...]


class ErasureLog:
    """The log of one ledger. Every process that has the ledger open may add to it."""

    def __init__(self, root: Path, ledger_id: str) -> None:
        """Use the log below `root`; a missing one is made with the first erasure."""
        self._path, self._key = root / LOG_NAME, ledger_id.encode()

    def note(self, kind: Erased, *ids: str) -> None:
        """Put an erasure on disk, before what is to be erased goes. Raises OSError where the disk fails."""
        line = f"{kind} {int(time.time())} {self.digest(kind, *ids)}\n"
        with self._path.open("a+b", opener=_open_private) as file:
            is_new = file.seek(0, os.SEEK_END) == 0
            head = f"{_HEADER} {secrets.token_hex(8)}\n" if is_new else _end_of_line(file.tell(), self._path)
            os.write(file.fileno(), (head + line).encode())  # one write to the end: lines of two processes do not mix
            os.fsync(file.fileno())

    def digest(self, kind: Erased, *ids: str) -> str:
        """Return what the log has of these ids."""
        said = "\0".join((kind, *ids)).encode()
        return hashlib.blake2b(said, key=self._key, digest_size=_DIGEST_BYTES).hexdigest()

    def read(self) -> ErasureHistory:
        """Return all of it; nothing where there is none."""
        return read_erasures(self._path)


def read_erasures(path: Path) -> ErasureHistory:
    """Return what a log holds. A line that was cut off by a power cut is left out."""
    try:
        head, *lines = path.read_text(encoding="ascii", errors="replace").splitlines() or [""]
    except FileNotFoundError:
        return ErasureHistory("", ())
    return ErasureHistory(head.rpartition(" ")[2], tuple(found for line in lines if (found := _parse(line))))


def _parse(line: str) -> Erasure | None:
    words = line.split()
    if len(words) != _FIELDS or words[0] not in set(Erased) or len(words[2]) != 2 * _DIGEST_BYTES:
        return None
    return Erasure(Erased(words[0]), int(words[1]), words[2]) if words[1].isdigit() else None


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _end_of_line(size: int, path: Path) -> str:
    """Return what ends a line that a power cut left unfinished."""
    with path.open("rb") as file:
        file.seek(size - 1)
        return "" if file.read(1) == b"\n" else "\n"
