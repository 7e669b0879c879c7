"""The list at the front of a backup: what is in it, of which ledger, and what had been erased by then."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from vps_bridge.conversations.sqlite import STORE_FILE
from vps_bridge.intake.spool import SPOOL
from vps_bridge.ledger.erasure_log import LOG_NAME
from vps_bridge.ledger.ledger import FILE_NAME

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 2**20
DATABASES = (FILE_NAME, STORE_FILE)
_NAME = rf"^({FILE_NAME}|{STORE_FILE}|{LOG_NAME}|{SPOOL}/[0-9a-f]{{32}})$"


class BackupUnusable(Exception):
    """A file that is no backup, or a damaged one; the message names the remedy."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be restored: {reason}. Nothing was changed; take another backup.")


class BackedUpFile(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True)
    name: Annotated[str, Field(pattern=_NAME)]
    bytes: int
    sha256: str


class BackupManifest(BaseModel):
    """What a backup says of itself."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1] = 1
    program: str
    ledger_id: str
    made_at: float
    """Unix time."""
    erasure_log: str
    """Which log of erasures it knows; empty: nothing had ever been erased."""
    erasures: int
    """How many lines of that log are older than the backup."""
    conversations: int
    chunks: int
    files: tuple[BackedUpFile, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)


def read_manifest(path: Path) -> BackupManifest:
    """Return what a backup says of itself. Raises `BackupUnusable`."""
    try:
        with tarfile.open(path, "r:") as tar:
            member = tar.next()
            if member is None or member.name != MANIFEST_NAME or member.size > MAX_MANIFEST_BYTES:
                raise BackupUnusable(path, "it is no backup of omi-bridge")
            data = tar.extractfile(member)
            return BackupManifest.model_validate_json(data.read() if data else b"")
    except (tarfile.TarError, ValueError) as error:
        raise BackupUnusable(path, "it is no backup that this version can read") from error
