"""The manifest of a pipeline directory: the sha256 of every file, pinned once and verified before every load."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.private_files import replace_file
from mac_agent.errors import EngineError

MANIFEST_FILE = "manifest.json"
REVISION_CHARS = 12  # how much of a commit or digest is shown to a person
# Neither is ever loaded: our own manifest, and the file that the Finder writes into every directory it shows.
IGNORED_NAMES = frozenset({MANIFEST_FILE, ".DS_Store"})


class ManifestUnreadable(EngineError):
    """A manifest file exists and cannot be read as a manifest."""


class PipelineChanged(EngineError):
    """The files of a pipeline differ from the pinned ones; none of them was loaded."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path} {problem}; nothing of this pipeline was loaded. {remedy}")
        self.path = path


class PinnedFile(BaseModel):
    """One file of a pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Relative to the directory, with forward slashes."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class Manifest(BaseModel):
    """The pinned files and where they came from; equal on every machine that fetched the same pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    source: str
    """Repository on the hub, or the directory it was copied from."""
    revision: str
    """Commit on the hub, or `content_revision` where there is none."""
    components: dict[str, str] = {}
    """Further repositories that parts were taken from, and their commits."""
    classes: tuple[str, ...] = ()
    """Python classes that `config.yaml` names, which loading runs."""
    files: tuple[PinnedFile, ...]


def list_files(directory: Path) -> tuple[PinnedFile, ...]:
    """Return every file below a directory with its sha256, sorted by path.

    Raises:
        PipelineChanged: a directory in it is a symbolic link, whose target could change without being noticed.
        OSError: something in it cannot be read.
    """
    found = []
    for parent, folders, names in os.walk(directory, onerror=_raise):
        for folder in folders:
            if (Path(parent) / folder).is_symlink():
                raise PipelineChanged(Path(parent) / folder, "is a link to a directory", "Copy that directory instead.")
        for name in names:
            if name not in IGNORED_NAMES:
                path = Path(parent) / name
                relative = path.relative_to(directory).as_posix()
                found.append(PinnedFile(path=relative, sha256=sha256_of(path), size_bytes=path.stat().st_size))
    return tuple(sorted(found, key=lambda file: file.path))


def content_revision(files: tuple[PinnedFile, ...]) -> str:
    """Return an identifier of exactly these files: the sha256 of their paths and digests."""
    text = "".join(f"{file.sha256}  {file.path}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def verify_files(directory: Path, manifest: Manifest, *, remedy: str) -> None:
    """Check that a directory holds the pinned files, unchanged, and no others.

    Args:
        directory: the directory that is about to be loaded.
        manifest: the pinned files.
        remedy: what a person should do about a difference, for the error's message.

    Raises:
        PipelineChanged: names the first file that is missing, new or different.
    """
    try:
        found = {file.path: file for file in list_files(directory)}
    except OSError as error:
        unread = Path(error.filename or directory)
        raise PipelineChanged(unread, f"cannot be read ({error.strerror})", remedy) from error
    pinned = {file.path: file for file in manifest.files}
    for path, file in pinned.items():
        if path not in found:
            raise PipelineChanged(directory / path, "is missing", remedy)
        if found[path].sha256 != file.sha256:
            problem = f"has sha256 {found[path].sha256[:16]}…, pinned was {file.sha256[:16]}…"
            raise PipelineChanged(directory / path, problem, remedy)
    for path in found:
        if path not in pinned:
            raise PipelineChanged(directory / path, "was added after the pipeline was pinned", remedy)


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest in a file, or None where there is no file.

    Raises:
        ManifestUnreadable: the file cannot be read, is not a manifest, or names a file outside the directory.
    """
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ManifestUnreadable(
            f"{path} is not a readable manifest of a pipeline. Delete it and fetch or trust the pipeline again."
        ) from error
    for file in manifest.files:
        if PurePosixPath(file.path).is_absolute() or ".." in PurePosixPath(file.path).parts:
            raise ManifestUnreadable(f"{path} names {file.path!r}, outside the pipeline. Delete it and start again.")
    return manifest


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, manifest.model_dump_json(indent=2) + "\n")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _raise(error: OSError) -> None:
    raise error
