"""Find pyannote pipelines on this machine, and pin those that may be loaded.

A checkpoint is a pickle and a config names Python classes: loading either runs code. So a pipeline is loaded only
while its files equal those that were pinned when it was fetched, or when a person ran `omi-agent trust DIR`.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mac_agent.errors import EngineError, ModelMissing
from mac_agent.weights.manifest import (
    MANIFEST_FILE,
    Manifest,
    ManifestUnreadable,
    content_revision,
    list_files,
    read_manifest,
    verify_files,
    write_manifest,
)
from mac_agent.weights.pipeline_config import check_parts, read_config

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE = "pyannote"
COPY_BYTES = 2**20


class PipelineMissing(EngineError):
    """A pipeline directory of the user's own that is not there."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"there is no pipeline directory {directory}. Correct --pipeline or OMI_PIPELINE_DIR; empty, the pipeline "
            "is used that omi-agent fetch-model pyannote fetched."
        )
        self.directory = directory


class PipelineUntrusted(EngineError):
    """A pipeline directory for which nobody ran `omi-agent trust`; nothing in it was loaded."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"{directory} was never trusted, and loading a pipeline runs code from it. If it is yours, run: "
            f"omi-agent trust {directory}"
        )
        self.directory = directory


@dataclass(frozen=True)
class PinnedPipeline:
    """A pipeline directory and its manifest, whose digests the files matched when this was returned."""

    directory: Path
    manifest: Manifest


def pipelines_dir(weights_dir: Path) -> Path:
    """Return the directory of the fetched pipelines, each in a folder `<name>@<revision>`."""
    return weights_dir / "models" / ENGINE


def find_pipeline(weights_dir: Path, own_dir: Path | None = None) -> PinnedPipeline:
    """Return the pipeline to load, after verifying the sha256 of each of its files.

    Args:
        weights_dir: the directory that contains `models/`.
        own_dir: a pipeline directory of the user's own; None: the pipeline that was fetched last.

    Raises:
        ModelMissing: no pipeline was fetched.
        PipelineMissing: there is no directory `own_dir`.
        PipelineUntrusted: nobody ran `omi-agent trust` for `own_dir`.
        PipelineChanged: a file differs from the pinned one; the message names it.
        ManifestUnreadable: the manifest is damaged.
    """
    if own_dir is not None:
        return _find_own(weights_dir, own_dir)
    fetched = list(pipelines_dir(weights_dir).glob(f"*@*/{MANIFEST_FILE}"))
    path = max(fetched, key=lambda path: path.stat().st_mtime_ns, default=None)
    manifest = read_manifest(path) if path is not None else None
    if path is None or manifest is None:
        raise ModelMissing(ENGINE, str(pipelines_dir(weights_dir)))
    verify_files(path.parent, manifest, remedy=f"Delete {path.parent} and run: omi-agent fetch-model {ENGINE}")
    return PinnedPipeline(path.parent, manifest)


def find_pinned(weights_dir: Path, repo_id: str) -> Manifest | None:
    """Return the manifest with which a pipeline of the hub was pinned when it was last fetched, or None."""
    paths = pipelines_dir(weights_dir).glob(f"*@*/{MANIFEST_FILE}")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(ManifestUnreadable):
            manifest = read_manifest(path)
            if manifest is not None and manifest.source == repo_id:
                return manifest
    return None


def trust_directory(weights_dir: Path, directory: Path) -> PinnedPipeline:
    """Pin a pipeline directory of the user's own as it is now. Nothing is written into it.

    Raises:
        NotAPipeline: it is no pipeline, or takes parts from elsewhere.
        PipelineChanged: it contains a symbolic link to a directory, or changes while it is read.
        OSError: something in it cannot be read, or the manifest cannot be written.
    """
    directory = directory.resolve()
    found = pin(directory, source=str(directory))
    # Its config and its digests are of one moment only where nobody can write between the two.
    with private_copy(PinnedPipeline(directory, found)) as copy:
        manifest = pin(copy, source=str(directory))
    write_manifest(_trust_file(weights_dir, directory), manifest)
    return PinnedPipeline(directory, manifest)


@contextmanager
def private_copy(pipeline: PinnedPipeline) -> Iterator[Path]:
    """Copy the pinned files into a directory of this process alone, check them there, and yield it; then delete it.

    A directory of other people can change between the check and the moment a file is loaded. What is checked is what is
    loaded only in a copy that nobody else can reach: a hard link would not do, since its content can still be changed.

    Raises:
        PipelineChanged: a file differs from the pinned one; the message names it.
        EngineError: there is no room for the copy.
    """
    with tempfile.TemporaryDirectory(prefix="omi-pipeline-") as scratch:
        copy = Path(scratch) / pipeline.directory.name  # the engine tells this name
        try:
            for file in pipeline.manifest.files:
                _copy_file(pipeline.directory / file.path, copy / file.path, file.size_bytes)
        except OSError as error:
            raise EngineError(
                f"{pipeline.directory} cannot be copied into {scratch} to be checked there ({error.strerror}). Make "
                "room, or set TMPDIR to a directory with room."
            ) from error
        verify_files(copy, pipeline.manifest, remedy=f"It changed while it was loaded: look at {pipeline.directory}")
        yield copy


def _copy_file(source: Path, target: Path, size_bytes: int) -> None:
    """Copy a file, and no more than a byte beyond its pinned size: it may have become a device that never ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left_bytes = size_bytes + 1
    with source.open("rb") as original, target.open("xb") as copy:
        while left_bytes > 0 and (block := original.read(min(COPY_BYTES, left_bytes))):
            copy.write(block)
            left_bytes -= len(block)


def pin(
    directory: Path, *, source: str, revision: str | None = None, components: dict[str, str] | None = None
) -> Manifest:
    """Return the manifest of a pipeline directory as it is now.

    Args:
        directory: a complete pipeline.
        source: where it came from.
        revision: commit on the hub; None: its `content_revision`.
        components: further repositories and their commits.

    Raises:
        NotAPipeline, PipelineChanged, OSError: as for `trust_directory`.
    """
    config = read_config(directory)
    check_parts(directory, config)
    files = list_files(directory)
    return Manifest(
        source=source,
        revision=revision or content_revision(files),
        components=components or {},
        classes=config.classes,
        files=files,
    )


def _find_own(weights_dir: Path, own_dir: Path) -> PinnedPipeline:
    directory = own_dir.resolve()
    if not directory.is_dir():
        raise PipelineMissing(own_dir)
    manifest = read_manifest(_trust_file(weights_dir, directory))
    if manifest is None:
        raise PipelineUntrusted(directory)
    verify_files(directory, manifest, remedy=f"If you changed it yourself, run: omi-agent trust {directory}")
    return PinnedPipeline(directory, manifest)


def _trust_file(weights_dir: Path, directory: Path) -> Path:
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:24]
    return weights_dir / "trusted" / f"{name}.json"
