"""Putting a backup back, with everything erased again that was erased since it was made."""

from __future__ import annotations

import secrets
import shutil
import tarfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from vps_bridge.backup.digest import Digest
from vps_bridge.backup.erase_again import ErasedAgain, erase_again
from vps_bridge.backup.large_file import LargeFile
from vps_bridge.backup.make import Report, remove_leftovers
from vps_bridge.backup.manifest import (
    DATABASES,
    MANIFEST_NAME,
    BackedUpFile,
    BackupManifest,
    BackupUnusable,
    read_manifest,
)
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.intake.spool import SPOOL, Spool
from vps_bridge.ledger import Ledger, LedgerBusy
from vps_bridge.ledger.erasure_log import LOG_NAME, Erasure, ErasureHistory, read_erasures
from vps_bridge.ledger.ledger import LOCK_NAME

NEW_SUFFIX, OLD_SUFFIX = ".restoring-", ".before-restore-"
_BLOCK_BYTES = 2**20


class RestoreRefused(Exception):
    """There is something that a restore would replace; the message says what to do."""


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    manifest: BackupManifest
    erased: ErasedAgain
    knows_erasures: bool
    """Whether the log was there that this backup knows the beginning of."""
    damaged_erasures: int
    """Lines of that log that cannot be read, or are gone from it: what they say may be there again."""
    previous: Path | None
    """Where what was there before is now."""


def restore_backup(
    backup: Path, root: Path, report: Report, *, overwrite: bool = False, erasures: Path | None = None
) -> Restored:
    """Put a backup in the place of `root`, which changes as a whole or not at all.

    Args:
        backup: the file.
        root: the directory of the bridge.
        report: called with how far it is.
        overwrite: replace a bridge's files that are there; they are kept beside it, under another name.
        erasures: a log of erasures to use in place of the one below `root`.

    Raises:
        BackupUnusable: the file is damaged, or none.
        RestoreRefused: files are there and are not to be replaced.
        LedgerBusy: a bridge runs there.
        DatabaseError: a newer program made it.
        OSError: the disk is full or fails.
    """
    manifest, root = read_manifest(backup), root.resolve()  # a link to another disk stays one
    root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    is_there = _holds_databases(root)
    if is_there and not overwrite:
        msg = f"{root} holds a bridge's files already: say --overwrite to replace them (they are kept beside it)"
        raise RestoreRefused(msg)
    lock = _lock(root)
    work = root.with_name(f"{root.name}{NEW_SUFFIX}{secrets.token_hex(4)}")
    try:
        work.mkdir(mode=0o700)
        _extract(backup, manifest, work, report)
        logs = [path for path in (erasures, root / LOG_NAME) if path is not None and path.exists()]
        history = read_erasures(logs[0]) if logs else ErasureHistory("", ())
        knows = bool(logs) and history.log_id == manifest.erasure_log
        before = read_erasures(work / LOG_NAME).erasures[: manifest.erasures]
        since = _find_since(history, before) if knows else _Since(history.erasures, history.unreadable)
        erased = _finish(work, since.erasures)
        if logs:  # it goes on, without a line for what is erased again: a later backup would count it as erased since
            shutil.copyfile(logs[0], work / LOG_NAME)
        previous = _swap(root, work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        lock.release()
    return Restored(manifest, erased, knows, since.damaged, previous if is_there else None)


def _holds_databases(root: Path) -> bool:
    return any((root / name).exists() for name in DATABASES)


class _Since(NamedTuple):
    """What was erased since a backup, and how many lines of the log cannot say."""

    erasures: tuple[Erasure, ...]
    damaged: int


def _find_since(history: ErasureHistory, before: Iterable[Erasure]) -> _Since:
    """Return what a log has beyond what was in it before: by what its lines say, as a damaged one has other numbers."""
    known = Counter(before)
    gone = known - Counter(history.erasures)
    since = []
    for erasure in history.erasures:
        if known[erasure]:
            known[erasure] -= 1
        else:
            since.append(erasure)
    return _Since(tuple(since), max(history.unreadable, gone.total()))


def _lock(root: Path) -> FileLock:
    root.mkdir(exist_ok=True, mode=0o700)
    remove_leftovers(root)
    lock = FileLock(root / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        msg = f"a bridge runs with {root}: stop it first (systemctl stop omi-bridge), then restore"
        raise LedgerBusy(msg) from None
    return lock


def _extract(backup: Path, manifest: BackupManifest, work: Path, report: Report) -> None:
    """Write the files that the manifest names, and check each; nothing else of the archive is used.

    Bytes that have the digest which the manifest gives are those of databases that were checked as the backup was made.
    """
    (work / SPOOL).mkdir(mode=0o700)
    wanted = {file.name: file for file in manifest.files}
    done = 0
    try:
        with tarfile.open(backup, "r:") as tar:
            for member in tar:
                file = wanted.pop(member.name, None)
                if file is not None:
                    _write_member(tar, member, file, work, backup)
                    done += file.bytes
                    report("reading", done, manifest.total_bytes)
                elif member.name != MANIFEST_NAME:
                    raise BackupUnusable(backup, f"it holds {member.name!r}, which no backup has")
    except tarfile.TarError as error:
        raise BackupUnusable(backup, str(error)) from error
    if wanted:
        raise BackupUnusable(backup, f"{len(wanted)} files are missing in it")


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, file: BackedUpFile, work: Path, backup: Path) -> None:
    source = tar.extractfile(member) if member.isreg() else None
    if source is None or member.size != file.bytes:
        raise BackupUnusable(backup, f"{file.name} in it is damaged")
    path = work / file.name
    path.touch(mode=0o600)
    with ThreadPoolExecutor() as pool, LargeFile(path) as target:
        digest = Digest(pool)
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            target.write(block)
        target.sync()
    if digest.hexdigest() != file.sha256:
        raise BackupUnusable(backup, f"{file.name} in it is damaged")


def _finish(work: Path, again: Iterable[Erasure]) -> ErasedAgain:
    """Bring the databases to this version's schema, erase again, and note what happened."""
    ledger, store = Ledger(work, exclusive=True), SqliteConversations(work / STORE_FILE)
    try:
        return erase_again(again, ledger, Spool(work / SPOOL), store)
    finally:
        store.close()
        ledger.close()


def _swap(root: Path, work: Path) -> Path:
    """Put the new directory in the old one's place, which keeps a name of its own."""
    moment = time.strftime("%Y%m%d-%H%M%S")
    previous = root.with_name(f"{root.name}{OLD_SUFFIX}{moment}-{secrets.token_hex(2)}")
    root.rename(previous)
    work.rename(root)
    if not _holds_databases(previous):
        shutil.rmtree(previous)  # nothing but the lock was there
    return previous
