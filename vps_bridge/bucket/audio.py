"""Audio in a bucket: each chunk an encrypted object, below the ledger that owns it and the conversation it is of.

A chunk's name in the spool tells its place: 32 hexadecimal digits for the conversation, a hyphen, 32 of its own. Names
of files in a directory have no hyphen: both kinds are told apart, whatever the settings were when audio was accepted.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tempfile
import threading
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from broker.errors import SettingsError
from vps_bridge.bucket.encryption import AudioDamaged, ChunkNames, KeyMissing, decrypt, encrypt
from vps_bridge.bucket.keys import SpoolKeys, read_keys
from vps_bridge.bucket.objects import BucketObjects, BucketRefuses, BucketUnavailable, ObjectMissing, StoredObject
from vps_bridge.errors import StoreUnavailable

_ID_DIGITS = 32
_NAME = re.compile(rf"[0-9a-f]{{{_ID_DIGITS}}}-[0-9a-f]{{{_ID_DIGITS}}}")
MARKER = "marker"
CANARY = "canary"
CANARY_LIFE_S = 3_600.0
READ_TRIES = 2  # what was damaged on the way is whole the second time


def is_in_bucket(name: str) -> bool:
    """Whether a chunk of this name in the spool was accepted into a bucket."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class StrayAudio:
    """An object of this ledger, and how old it is by the store's own clock."""

    name: str
    age_s: float


class BucketAudio:
    """The audio of one ledger in a bucket. Safe to use from several threads.

    Calls raise `StoreUnavailable`; those that need the bucket check it first, once.
    """

    def __init__(self, objects: BucketObjects, keys: SpoolKeys, ledger_id: str, scratch: Path) -> None:
        """Ask nothing yet; encrypted files are made in `scratch`, which is private."""
        self.objects, self.scratch = objects, scratch
        self._keys, self._ledger_id = keys, ledger_id
        self._root = f"{objects.address.prefix}{ledger_id}/"
        self._checking, self._is_checked, self._is_known = threading.Lock(), False, False

    def new_name(self, conversation_id: str) -> str:
        """Return a name in the spool for a new chunk of a conversation."""
        return f"{self.place_of(conversation_id)}-{secrets.token_hex(_ID_DIGITS // 2)}"

    def place_of(self, conversation_id: str) -> str:
        """Return the digits that stand for a conversation: its id tells the store nothing."""
        return hashlib.sha256(f"{self._ledger_id}/{conversation_id}".encode()).hexdigest()[:_ID_DIGITS]

    def note_known(self) -> None:
        """Note that the ledger has audio in the bucket: one without our marker is not the right one."""
        self._is_known = True

    def check(self) -> None:
        """Find out, once, whether this is our bucket and whether it keeps versions. Raises `StoreUnavailable`."""
        with self._checking:
            if self._is_checked:
                return
            self.objects.find_versions()
            there = [found.key for found in self.objects.list(self._root + MARKER)]
            if not there and self._is_known:
                raise BucketRefuses(
                    f"{self.objects.address.shown} never held audio of this ledger, which has some in a bucket: "
                    "correct OMI_SPOOL_URL, or give that audio up (omi-bridge purge --audio --older-than 0s)"
                )
            if not there:
                self._put_small(self._root + MARKER, b"audio of one ledger of omi-bridge, encrypted\n")
            self._is_checked = True

    def put(self, file: Path, names: ChunkNames) -> None:
        """Store a chunk; once this returns, the bucket has it whole."""
        self.check()
        with tempfile.NamedTemporaryFile(dir=self.scratch, prefix="e-") as encrypted, file.open("rb") as source:
            md5 = encrypt(source, encrypted, self._keys.newest, names)
            encrypted.flush()
            self.objects.put(self._key(names.name), Path(encrypted.name), md5)

    def fetch(self, target: Path, names: ChunkNames, sha256: str) -> None:
        """Write a chunk into a file, whole and as it was accepted, or raise.

        Raises:
            ObjectMissing: the bucket does not have it.
            AudioDamaged: what it has is not what was accepted.
            KeyMissing: the key it was encrypted with is not here.
        """
        self.check()
        for attempt in range(READ_TRIES):
            try:
                self._read(target, names, sha256)
                return
            except AudioDamaged:
                if attempt == READ_TRIES - 1:
                    raise

    def _read(self, target: Path, names: ChunkNames, sha256: str) -> None:
        with tempfile.NamedTemporaryFile(dir=self.scratch, prefix="d-", delete=False) as file:
            unproven = Path(file.name)
            try:
                try:
                    found = decrypt(self.objects.read(self._key(names.name)), file, self._keys, names)
                except KeyMissing:
                    with suppress(SettingsError):  # a file that is being copied there
                        self._keys = read_keys(self._keys.file)
                    raise
                _check_sha256(found, sha256)
                file.flush()
                unproven.replace(target)
            except BaseException:
                unproven.unlink(missing_ok=True)
                raise

    def erase(self, names: Iterable[str]) -> None:
        """Delete chunks in every version; those that are gone already are no error."""
        self.check()
        for name in names:
            self.objects.erase(self._key(name))

    def erase_conversation(self, conversation_id: str) -> int:
        """Delete all audio of a conversation in every version, known to the ledger or not; return how many objects."""
        self.check()
        return self.objects.erase(f"{self._root}{self.place_of(conversation_id)}/")

    def strays(self) -> Iterator[StrayAudio]:
        """Yield all objects of this ledger, to be compared with what it knows."""
        self.check()
        now = self._store_time()
        for found in self.objects.list(self._root):
            place, slash, own = found.key.removeprefix(self._root).partition("/")
            if slash:
                yield StrayAudio(f"{place}-{own}", now - found.modified_at)
            elif place.startswith(CANARY) and now - found.modified_at > CANARY_LIFE_S:
                self.objects.erase(found.key)  # whoever put it was killed

    def prove(self) -> None:
        """Put, read and delete an object, and look that no version of it is left. Raises `StoreUnavailable`."""
        self.check()
        key = f"{self._root}{CANARY}-{secrets.token_hex(8)}"
        names = ChunkNames(self._ledger_id, CANARY, CANARY, key)
        said = secrets.token_bytes(64)
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            plain, encrypted, back = (Path(name) / part for part in ("plain", "encrypted", "back"))
            plain.write_bytes(said)
            for _ in range(2):  # the second makes another version, where there are versions
                with plain.open("rb") as source, encrypted.open("wb") as target:
                    md5 = encrypt(source, target, self._keys.newest, names)
                self.objects.put(key, encrypted, md5)
            try:
                with back.open("wb") as target:
                    decrypt(self.objects.read(key), target, self._keys, names)
                    self._check_missing(f"{key}-0")
            except AudioDamaged as error:
                self.objects.erase(key)
                raise BucketUnavailable(f"{self.objects.address.shown} gives back other bytes: {error}") from error
            except StoreUnavailable:
                with suppress(StoreUnavailable):
                    self.objects.erase(key)
                raise
            self.objects.erase(key)

    def _check_missing(self, key: str) -> None:
        """Ask for what is not there: a store that answers `AccessDenied` then would hide that audio is gone."""
        with suppress(ObjectMissing):
            for _ in self.objects.read(key):
                raise BucketUnavailable(f"{self.objects.address.shown} has an object that nobody put there: {key}")

    def _store_time(self) -> float:
        """Return the time by the store's clock: its times are compared with no other."""
        key = f"{self._root}{CANARY}-{secrets.token_hex(8)}"
        self._put_small(key, b"\n")
        found: list[StoredObject] = list(self.objects.list(key))
        self.objects.erase(key)
        return max((one.modified_at for one in found), default=0.0)

    def _put_small(self, key: str, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self.scratch, prefix="s-") as file:
            file.write(data)
            file.flush()
            md5 = hashlib.md5(data, usedforsecurity=False).digest()
            self.objects.put(key, Path(file.name), b64encode(md5).decode())

    def _key(self, name: str) -> str:
        return self._root + name.replace("-", "/", 1)


def _check_sha256(found: str, wanted: str) -> None:
    if found != wanted:
        raise AudioDamaged("its sha256 is not the one that was accepted")
