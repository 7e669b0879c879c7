"""A spool whose audio is in a bucket, with copies on this disk for as long as there is room for them.

The bridge's own thread never waits for the bucket: what has to be asked of it is done by `Transfers`, and the bridge
asks again. A chunk that was accepted into the directory before there was a bucket is still there, and read from there.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path

import structlog

from vps_bridge.bucket.audio import CANARY, BucketAudio, is_in_bucket
from vps_bridge.bucket.encryption import AudioDamaged, ChunkNames
from vps_bridge.bucket.objects import ObjectMissing
from vps_bridge.bucket.transfers import Transfers
from vps_bridge.errors import StoreUnavailable
from vps_bridge.intake.spool import SPOOL, Spool
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import ChunkRecord

_LOG = structlog.get_logger(__name__)
COPIES = "copies"  # below the bridge's root
REST_S = 5.0  # a deletion that failed is tried again so soon
PROBE_S = 5.0
SEARCH_S = 3_600.0
MOVED_AT_ONCE = 16
MAX_READERS = 16  # of one chunk that is on its way
Call = Callable[[], object]


class BucketSpool(Spool):
    """The spool of the settings `spool_url`. Methods are for the bridge's own thread, where nothing else is said."""

    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        audio: BucketAudio,
        *,
        copies_bytes: int,
        orphan_s: float,
        transfers: Transfers,
        on_thread: Callable[[Call], object],
    ) -> None:
        """Keep at most `copies_bytes` of copies below `root`, and delete what the ledger never knew after `orphan_s`.

        `on_thread` has something done by the bridge's own thread.
        """
        super().__init__(root / SPOOL)
        self.audio, self.transfers, self._ledger, self._on_thread = audio, transfers, ledger, on_thread
        self._copies_bytes, self._orphan_s = copies_bytes, orphan_s
        self._copies = root / COPIES
        self._copies.mkdir(exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._readers: dict[str, list[Call]] = {}  # by chunk that is on its way, who waits for it
        self._lost = set[str]()  # what the bucket does not have, or not as it was accepted
        self._removing, self._removed = set[str](), set[str]()  # chunks
        self._erasing, self._erased = set[str](), set[str]()  # conversations
        self._unwanted = set[str]()  # chunks that could not be discarded
        self._rests = dict[str, float]()  # of conversations that could not be erased, until when (monotonic seconds)
        self._moving = 0  # chunks
        self._searched_s, self._probed_s = -math.inf, 0.0
        for directory in (self._copies, audio.scratch):
            for left in directory.iterdir():  # of a bridge that was killed: what it fetched is fetched again
                left.unlink() if left.is_file() else shutil.rmtree(left, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Return where a chunk is on this disk, if it is."""
        return (self._copies if is_in_bucket(name) else self.directory) / name

    def names_of(self, conversation_id: str, chunk_id: str, name: str) -> ChunkNames:
        """Return what a chunk is bound to."""
        return ChunkNames(self._ledger.ledger_id, conversation_id, chunk_id, name)

    # ------------------------------------------------------------------------------------------- reading

    def is_at_hand(self, chunk: ChunkRecord, then: Call) -> bool:
        """As `Spool.is_at_hand`: a chunk that has no copy here is fetched. Where that fails, `then` is not called."""
        name = chunk.spool_name or ""
        if not is_in_bucket(name) or name in self._lost:
            return True
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(name))  # it was used: others go before it
            return True
        with self._lock:
            if name in self._readers:
                if len(self._readers[name]) < MAX_READERS:
                    self._readers[name].append(then)
                return False
            self._readers[name] = [then]
        self._submit(name, partial(self._bring, chunk))
        return False

    def _bring(self, chunk: ChunkRecord) -> None:
        """Fetch a chunk and call who waits for it. Runs on a thread of `Transfers`."""
        name = chunk.spool_name or ""
        came = False
        try:
            self.fetch(chunk)
            came = True
        except FileNotFoundError:
            self._lost.add(name)
            came = True  # that it is gone, those who wait find out
        except (StoreUnavailable, OSError) as error:
            words = str(error) if isinstance(error, StoreUnavailable) else error.strerror
            _LOG.warning("audio_not_fetched", conversation=chunk.conversation_id, chunk=chunk.chunk_id, error=words)
        finally:
            with self._lock:
                readers = self._readers.pop(name, [])
            for reader in readers if came else ():
                self._on_thread(reader)

    def fetch(self, chunk: ChunkRecord) -> Path:
        """As `Spool.fetch`."""
        name = chunk.spool_name or ""
        path = self.path(name)
        if path.is_file() or not is_in_bucket(name):
            return super().fetch(chunk)
        try:
            self.audio.fetch(path, self.names_of(chunk.conversation_id, chunk.chunk_id, name), chunk.sha256)
        except ObjectMissing as error:
            _LOG.error("audio_missing", conversation=chunk.conversation_id, chunk=chunk.chunk_id)
            raise FileNotFoundError(name) from error
        except AudioDamaged as error:
            _LOG.error("audio_damaged", conversation=chunk.conversation_id, chunk=chunk.chunk_id, error=str(error))
            raise FileNotFoundError(name) from error
        return path

    def is_sound(self, chunk: ChunkRecord) -> bool:
        """As `Spool.is_sound`; a copy that was changed is deleted, and whoever reads the bucket checks what comes."""
        name = chunk.spool_name or ""
        if super().is_sound(chunk):
            return True
        if not is_in_bucket(name) or name in self._lost:
            return False
        self.path(name).unlink(missing_ok=True)
        return True

    # ------------------------------------------------------------------------------------------ deleting

    def remove(self, *names: str) -> frozenset[str]:
        """As `Spool.remove`: copies at once, the bucket's as soon as it answers."""
        asked = frozenset(names)
        super().remove(*asked)
        kept = {name for name in asked if is_in_bucket(name)}
        with self._lock:
            starting = kept - self._removing - self._removed
            self._removing |= starting
        places: dict[str, list[str]] = {}
        for name in starting:
            places.setdefault(name.partition("-")[0], []).append(name)
        for place, mine in places.items():
            self._submit(place, partial(self._remove, mine))
        with self._lock:
            gone = (asked - kept) | (kept & self._removed)
            self._removed -= gone
            self._lost -= gone
        return gone

    def _remove(self, names: list[str]) -> None:
        """Delete chunks from the bucket. Runs on a thread of `Transfers`."""
        try:
            self.audio.erase(names)
            with self._lock:
                self._removed |= set(names)
        except StoreUnavailable as error:
            _LOG.warning("audio_not_deleted", chunks=len(names), error=str(error))
        finally:
            with self._lock:
                self._removing -= set(names)

    def discard(self, name: str) -> None:
        """Delete a chunk that the ledger never had; what is left of it if this ends before is found as an orphan."""
        self.path(name).unlink(missing_ok=True)
        self._submit(name.partition("-")[0], partial(self._discard, name))

    def _discard(self, name: str) -> None:
        """Delete an object. Runs on a thread of `Transfers`."""
        try:
            self.audio.erase([name])
        except StoreUnavailable:
            with self._lock:
                self._unwanted.add(name)

    def _discard_again(self) -> None:
        with self._lock:
            unwanted, self._unwanted = self._unwanted, set()
        for name in unwanted:
            self.discard(name)

    def may_erase(self, conversation_id: str) -> bool:
        """As `Spool.may_erase`."""
        with self._lock:
            is_resting = time.monotonic() < self._rests.get(conversation_id, 0.0)
            return conversation_id in self._erased or not (conversation_id in self._erasing or is_resting)

    def erase(self, conversation_id: str, names: Iterable[str]) -> bool:
        """As `Spool.erase`: whatever the bucket has of the conversation, also what no ledger ever knew."""
        place = self.audio.place_of(conversation_id)
        super().remove(*names)
        self.forget(conversation_id)
        with self._lock:
            if conversation_id in self._erased:
                self._erased.discard(conversation_id)
                return True
            if conversation_id in self._erasing:
                return False
            self._erasing.add(conversation_id)
        self._submit(place, partial(self._erase, conversation_id))
        return False

    def forget(self, conversation_id: str) -> None:
        """As `Spool.forget`."""
        for path in self._copies.glob(f"{self.audio.place_of(conversation_id)}-*"):
            path.unlink(missing_ok=True)

    def _erase(self, conversation_id: str) -> None:
        """Delete a conversation's objects. Runs on a thread of `Transfers`, after what is being put of it."""
        try:
            count = self.audio.erase_conversation(conversation_id)
            with self._lock:
                self._erased.add(conversation_id)
                self._rests.pop(conversation_id, None)
            _LOG.info("bucket_erased", conversation=conversation_id, objects=count)
        except StoreUnavailable as error:
            with self._lock:
                self._rests[conversation_id] = time.monotonic() + REST_S
            _LOG.warning("bucket_not_erased", conversation=conversation_id, error=str(error))
        finally:
            with self._lock:
                self._erasing.discard(conversation_id)

    # ---------------------------------------------------------------------------------------- now and then

    def adopt(self, path: Path, name: str | None = None) -> str:
        """As `Spool.adopt`; a chunk that the bucket has is only a copy, which may be lost."""
        if name is None or not is_in_bucket(name):
            return super().adopt(path, name)
        path.replace(self.path(name))
        return name

    @property
    def problem(self) -> str | None:
        """As `Spool.problem`."""
        return self.audio.objects.problem

    def tidy(self, *, keep_copies: bool) -> None:
        """Delete copies that are not needed, bring in what is still in the directory, look for orphans once an hour."""
        now_s = time.monotonic()
        self._evict(self._ledger.chunks.spool_names(), self._copies_bytes if keep_copies else 0)
        self._move_in()
        self._discard_again()
        if now_s - self._searched_s >= SEARCH_S:
            self._searched_s = now_s
            self._submit(CANARY, self._search)

    def probe(self, now_s: float) -> None:
        """Ask a bucket that does not answer whether it does again: audio is not sent to a bridge that takes none."""
        if self.problem is not None and now_s >= self._probed_s:
            self._probed_s = now_s + PROBE_S
            self._submit(CANARY, self._prove)

    def _prove(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            self.audio.prove()
            self._discard_again()

    def _evict(self, known: set[str], limit_bytes: int) -> None:
        """Delete copies of what the ledger does not know any more, and those used longest ago, down to a limit."""
        copies = []
        for path in self._copies.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name not in known:
                    path.unlink()
                else:
                    found = path.stat()
                    copies.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in copies)
        for _, size, path in sorted(copies, key=lambda copy: copy[0]):
            if total <= limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _move_in(self) -> None:
        """Bring chunks into the bucket that were accepted into the directory, before there was a bucket."""
        if self._moving or self.problem is not None:
            return
        for chunk in self._ledger.chunks.in_directory(MOVED_AT_ONCE):
            if self.path(chunk.spool_name or "").is_file():
                self._moving += 1
                new = self.audio.new_name(chunk.conversation_id)
                self._submit(self.audio.place_of(chunk.conversation_id), partial(self._move, chunk, new))

    def _move(self, chunk: ChunkRecord, new: str) -> None:
        """Put a chunk. Runs on a thread of `Transfers`."""
        is_there = False
        try:
            names = self.names_of(chunk.conversation_id, chunk.chunk_id, new)
            self.audio.put(self.path(chunk.spool_name or ""), names)
            is_there = True
        except (StoreUnavailable, OSError) as error:
            words = str(error) if isinstance(error, StoreUnavailable) else error.strerror
            _LOG.warning("audio_not_moved", conversation=chunk.conversation_id, chunk=chunk.chunk_id, error=words)
        finally:
            self._on_thread(partial(self._note_moved, chunk, new, is_there=is_there))

    def _note_moved(self, chunk: ChunkRecord, new: str, *, is_there: bool) -> None:
        old = chunk.spool_name or ""
        self._moving -= 1
        if is_there and self._ledger.chunks.move_spooled(chunk.arrival, old, new):
            self._ledger.sync()  # the file must not be gone before the row that says where its audio is
            self.path(old).replace(self.path(new))
            _LOG.info("audio_moved_to_bucket", conversation=chunk.conversation_id, chunk=chunk.chunk_id)
            self._move_in()
        elif is_there:
            self.discard(new)  # it was deleted meanwhile

    def _search(self) -> None:
        """Find objects that no ledger's row ever came for. Runs on a thread of `Transfers`."""
        try:
            old = [stray.name for stray in self.audio.strays() if stray.age_s > self._orphan_s]
        except StoreUnavailable as error:
            _LOG.warning("orphans_not_searched", error=str(error))
            return
        if old:
            self._on_thread(partial(self._drop_unknown, old))

    def _drop_unknown(self, names: list[str]) -> None:
        unknown = set(names) - self._ledger.chunks.spool_names()
        for name in unknown:
            self.discard(name)
        if unknown:
            _LOG.warning("orphans_deleted", objects=len(unknown))

    def close(self) -> None:
        """As `Spool.close`."""
        self.transfers.close()

    def _submit(self, key: str, work: Call) -> None:
        with contextlib.suppress(CancelledError):  # the bridge stops: the next one does it
            self.transfers.submit(key, work)
