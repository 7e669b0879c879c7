"""Making a backup beside a running bridge: both databases as of one moment, and the audio of work in flight."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from vps_bridge.backup.digest import Digest, DigestedFile
from vps_bridge.backup.large_file import LargeFile
from vps_bridge.backup.manifest import DATABASES, MANIFEST_NAME, BackedUpFile, BackupManifest
from vps_bridge.bucket.audio import is_in_bucket
from vps_bridge.database import DatabaseUnreadable
from vps_bridge.database_copies import check_database, copy_databases
from vps_bridge.intake.spool import SPOOL
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.erasure_log import LOG_NAME, ErasureHistory, ErasureLog
from vps_bridge.ledger.ledger import FILE_NAME as LEDGER_FILE

WORK_PREFIX = ".backup-"  # a directory below the bridge's root while a backup is made
ROOM_FACTOR = 1.2  # of the databases' size
_BLOCK_BYTES = 2**20
Report = Callable[[str, int, int], None]
"""Called with what is done, how many bytes of it, and of how many."""


def make_backup(root: Path, target: Path, report: Report) -> BackupManifest:
    """Write a backup of the bridge's files below `root` into `target`, which is replaced as a whole or not at all.

    A chunk that was accepted before this is called is in it, and one that is accepted later is not.

    Raises:
        LedgerMissing: no bridge ever ran there.
        DatabaseError: a database is damaged.
        OSError: there is no room, or `target` cannot be written.
    """
    before = _read_erasures(root)  # what is erased from here on is erased again with a restore
    remove_leftovers(root)
    with _work_directory(root) as work, ThreadPoolExecutor() as pool:
        checks = DatabaseChecks(work, pool)
        try:
            return _write_tar(checks, _gather(root, checks, before, report), target, report)
        except DatabaseUnreadable as error:  # of a copy: the file that it is one of is what can be mended
            raise DatabaseUnreadable(root / error.path.name, error.reason) from error


@contextlib.contextmanager
def _work_directory(root: Path) -> Iterator[Path]:
    """Make a directory that is removed at the end, and locked until then: others leave it alone while we live."""
    with tempfile.TemporaryDirectory(prefix=WORK_PREFIX, dir=root) as scratch, _opened(Path(scratch)) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Path(scratch)


def remove_leftovers(root: Path) -> None:
    """Remove what a backup left behind that was killed: it may hold audio that was erased since."""
    for path in root.glob(f"{WORK_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, BlockingIOError), _opened(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by a backup that runs
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_erasures(root: Path) -> ErasureHistory:
    ledger = Ledger(root, exclusive=False)
    try:
        log = ErasureLog(root, ledger.ledger_id)
        log.begin()
        return log.read()
    finally:
        ledger.close()


class DatabaseChecks:
    """What other threads find out of the copied databases, while these are in the system's cache anyway."""

    def __init__(self, work: Path, pool: Executor) -> None:
        """Check databases below `work`."""
        self.work, self.pool = work, pool
        self._begun: list[Future[None]] = []

    def begin(self, name: str) -> None:
        """Check a database, from now on. Nobody may change it any more."""
        self._begun.append(self.pool.submit(check_database, self.work / name))

    def wait(self) -> None:
        """Wait for all of them. Raises `DatabaseUnreadable` where one is damaged."""
        for check in self._begun:
            check.result()

    def begin_removal(self) -> None:
        """Remove the copies, which takes a while: their memory is given back."""
        for name in DATABASES:
            self.pool.submit((self.work / name).unlink, missing_ok=True)


def _gather(root: Path, checks: DatabaseChecks, before: ErasureHistory, report: Report) -> BackupManifest:
    work = checks.work
    spool = work / SPOOL
    spool.mkdir(mode=0o700)
    # What is unlinked while the databases are copied stays here under a second name.
    _link_all(root / SPOOL, spool, [path.name for path in (root / SPOOL).glob("*")])
    _check_room(root)
    copies = {root / name: work / name for name in DATABASES if (root / name).exists()}

    def begin(path: Path) -> None:
        if path.name != LEDGER_FILE:  # that one is changed below
            checks.begin(path.name)

    copy_databases(copies, lambda done, total: report("copying", done, total), begin)
    copy = Ledger.open_copy(work)
    try:
        needed = copy.chunks.needed_spool_names()
        _link_all(root / SPOOL, spool, needed)
        for path in list(spool.iterdir()):
            if path.name not in needed:
                path.unlink()
        there = {path.name for path in spool.iterdir()}
        # What is in a bucket stays there: a restored bridge reads it from there, as far as it is still kept.
        copy.chunks.keep_spooled(there | {name for name in needed if is_in_bucket(name)})
        conversations, ledger_id = copy.listing.count(), copy.ledger_id
    finally:
        copy.close()
    checks.begin(LEDGER_FILE)
    return _describe(work, before, sorted(there), ledger_id, conversations)


def _check_room(root: Path) -> None:
    """Refuse to fill the bridge's own disk with the copies."""
    size = sum((root / name).stat().st_size for name in DATABASES if (root / name).exists())
    if shutil.disk_usage(root).free < ROOM_FACTOR * size:
        raise OSError(errno.ENOSPC, f"a backup first needs {ROOM_FACTOR * size / 2**20:.0f} MiB there", str(root))


def _describe(
    work: Path, before: ErasureHistory, chunks: list[str], ledger_id: str, conversations: int
) -> BackupManifest:
    if (work.parent / LOG_NAME).exists():
        shutil.copyfile(work.parent / LOG_NAME, work / LOG_NAME)
    names = [name for name in (*DATABASES, LOG_NAME) if (work / name).exists()]
    return BackupManifest(
        program=version("omi-diarization"),
        ledger_id=ledger_id,
        made_at=time.time(),
        erasure_log=before.log_id,
        erasures=len(before.erasures),
        conversations=conversations,
        chunks=len(chunks),
        files=tuple(_not_read_yet(work, name) for name in (*names, *(f"{SPOOL}/{name}" for name in chunks))),
    )


def _not_read_yet(work: Path, name: str) -> BackedUpFile:
    return BackedUpFile(name=name, bytes=(work / name).stat().st_size, sha256="0" * 64)


def _link_all(source: Path, target: Path, names: Iterable[str]) -> None:
    """Give files a second name, or copy them where the file system has none; what is gone already is left out."""
    for name in names:
        if (target / name).exists():
            continue
        with contextlib.suppress(FileNotFoundError):
            try:
                os.link(source / name, target / name)
            except OSError:
                shutil.copyfile(source / name, target / name)


def _write_tar(checks: DatabaseChecks, manifest: BackupManifest, target: Path, report: Report) -> BackupManifest:
    """Write the backup, and return its manifest with the digests.

    These are made while it is written, so the manifest, whose length they do not change, is written over at the end.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
    try:
        with LargeFile(descriptor) as file:
            manifest = _write_members(checks, manifest, file, report)
            checks.wait()
            checks.begin_removal()
            with tarfile.open(name, "r:") as tar:
                file.seek(tar.getmember(MANIFEST_NAME).offset_data)
            file.write(_as_bytes(manifest))
            file.sync()
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)
    return manifest


def _write_members(checks: DatabaseChecks, manifest: BackupManifest, file: LargeFile, report: Report) -> BackupManifest:
    """Write the manifest and then the files that it names; return it with their digests."""
    work, written, done = checks.work, list[BackedUpFile](), 0
    (work / MANIFEST_NAME).write_bytes(_as_bytes(manifest))
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        # By 16 KiB it takes twice as long; the types of the standard library do not know this attribute.
        tar.copybufsize = _BLOCK_BYTES  # type: ignore[attr-defined]
        tar.add(work / MANIFEST_NAME, arcname=MANIFEST_NAME, filter=_anonymous)
        for found in manifest.files:
            digest = Digest(checks.pool)
            with (work / found.name).open("rb") as source:
                member = _anonymous(tar.gettarinfo(arcname=found.name, fileobj=source))
                tar.addfile(member, DigestedFile(source, digest))
            written.append(found.model_copy(update={"sha256": digest.hexdigest()}))
            done += found.bytes
            report("writing", done, manifest.total_bytes)
    file.flush()
    return manifest.model_copy(update={"files": tuple(written)})


def _as_bytes(manifest: BackupManifest) -> bytes:
    return manifest.model_dump_json(indent=2).encode()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
