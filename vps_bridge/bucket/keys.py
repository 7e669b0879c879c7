"""The keys that audio is encrypted with before it goes into a bucket: a file of mode 600 on every bridge.

The first key of the file encrypts, all of them decrypt: so a new key comes first, and an old one stays until nothing
that it encrypted is kept any more.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker.errors import SettingsError
from broker.secret_setting import read_secret

KEY_BYTES = 32  # AES-256
ID_BYTES = 8
_LINE = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}")
_HEAD = """\
# Keys of omi-bridge for audio in a bucket: the first one encrypts, all of them decrypt.
# Without this file nobody reads that audio again. It is the same on every bridge of one ledger.
"""
MAKE = "omi-bridge spool-key makes one"


@dataclass(frozen=True)
class SpoolKey:
    """One key, and the id by which encrypted audio names it."""

    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> bytes:
        """What names the key in public: eight bytes that tell nothing of it."""
        return hashlib.sha256(b"omi-bridge spool key\0" + self.secret).digest()[:ID_BYTES]


@dataclass(frozen=True)
class SpoolKeys:
    """The keys of one file, newest first."""

    file: Path
    keys: tuple[SpoolKey, ...]

    @property
    def newest(self) -> SpoolKey:
        """The key that encrypts."""
        return self.keys[0]

    def find(self, key_id: bytes) -> SpoolKey | None:
        """Return the key of this id; None where the file does not have it."""
        return next((key for key in self.keys if key.key_id == key_id), None)


def read_keys(file: Path | None) -> SpoolKeys:
    """Return the keys of a file. Raises `SettingsError`: there is none, others may read it, or it holds no keys."""
    if file is None:
        words = f"audio in a bucket is encrypted: name the file of its keys (OMI_SPOOL_KEY_FILE); {MAKE}"
        raise SettingsError("spool_key_file", "the settings", words)
    if not file.exists():
        words = f"there is no such file: {MAKE}, and a bridge that joins others takes theirs"
        raise SettingsError("spool_key_file", str(file), words)
    text = read_secret("spool_key", None, file) or ""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or not all(_LINE.fullmatch(line) for line in lines):
        words = f"it has to hold keys of {2 * KEY_BYTES} hexadecimal digits, one a line; {MAKE}"
        raise SettingsError("spool_key_file", str(file), words)
    return SpoolKeys(file, tuple(SpoolKey(bytes.fromhex(line)) for line in dict.fromkeys(lines)))


def make_key_file(file: Path) -> SpoolKeys:
    """Write a file with one new key. Raises `SettingsError` where there is a file already, `OSError`."""
    if file.exists():
        words = "there is a file already: say --rotate to put a new key before those that it holds"
        raise SettingsError("spool_key_file", str(file), words)
    return _write(file, (_new_key(),))


def rotate_key_file(file: Path) -> SpoolKeys:
    """Put a new key first; the others still decrypt. Raises `SettingsError` and `OSError`."""
    return _write(file, (_new_key(), *read_keys(file).keys))


def drop_old_keys(file: Path) -> SpoolKeys:
    """Keep only the newest key: what the others encrypted is unreadable from now on."""
    return _write(file, read_keys(file).keys[:1])


def _new_key() -> SpoolKey:
    return SpoolKey(secrets.token_bytes(KEY_BYTES))


def _write(file: Path, keys: Sequence[SpoolKey]) -> SpoolKeys:
    """Replace the file as a whole, durably: half of it would be the loss of all audio."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}-{time.monotonic_ns()}")
    try:
        with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as target:
            target.write(_HEAD + "".join(f"{key.secret.hex()}\n" for key in keys))
            target.flush()
            os.fsync(target.fileno())
        unfinished.replace(file)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return SpoolKeys(file, tuple(keys))
