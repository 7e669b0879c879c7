"""Fetch a pyannote pipeline from the hub once; later it is loaded from disk, without a network.

The commit is pinned, each file is compared with the digest that the hub lists for it, and a manifest is written. Where
a config takes parts from other repositories, as that of 3.1 does, these are fetched too and the config is rewritten,
so that one directory holds the whole pipeline.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mac_agent.weights.hub_errors import (
    HUB_PAGE,
    HubUnreachable,
    LicenceNotAccepted,
    NotConfirmed,
    NotOnHub,
    TokenMissing,
    TokenRefused,
    WrongFile,
)
from mac_agent.weights.manifest import (
    MANIFEST_FILE,
    REVISION_CHARS,
    Manifest,
    ManifestUnreadable,
    PipelineChanged,
    read_manifest,
    verify_files,
    write_manifest,
)
from mac_agent.weights.pipeline_config import (
    CHECKPOINT,
    CONFIG_FILE,
    INSIDE,
    PARTS,
    PLDA_FILES,
    NotAPipeline,
    read_config,
)
from mac_agent.weights.pipelines import PinnedPipeline, find_pinned, pin, pipelines_dir

# Set before huggingface_hub is imported, because it reads them only then.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import httpx2
from huggingface_hub import HfApi, RepoFile, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mac_agent.errors import EngineError
    from mac_agent.weights.hub_token import HubToken

DEFAULT_PIPELINE = "pyannote/speaker-diarization-community-1"
# The files that loading reads, and the licence. Nothing else of a repository is fetched.
_KEPT_SUFFIXES = (".yaml", ".bin", ".npz", ".md", ".txt", "LICENSE")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_UNAUTHORIZED, _FORBIDDEN, _TOO_MANY, _SERVER_ERROR = 401, 403, 429, 500


def fetch_pipeline(
    weights_dir: Path,
    repo_id: str = DEFAULT_PIPELINE,
    *,
    revision: str | None = None,
    token: HubToken | None = None,
    report: Callable[[str, float], None],
    confirm: Callable[[str, str], bool],
) -> PinnedPipeline:
    """Fetch a pipeline and pin it. One that is already here and unchanged only becomes the one that is loaded.

    Args:
        weights_dir: the directory that contains `models/`.
        repo_id: `owner/name` on the hub.
        revision: branch, tag or commit; None: the commit that was pinned when it was last fetched, else the newest.
        token: needed for gated pipelines.
        report: called with (stage, fraction 0..1).
        confirm: asked with (repository, commit) about each commit that was neither named in full nor pinned before.

    Raises:
        HubError: one of its subclasses above; the message names the next step.
        NotAPipeline: the repository holds something else.
        OSError: the disk is full, or the directory cannot be written.
    """
    pinned = find_pinned(weights_dir, repo_id)
    commit = _choose_commit(repo_id, revision, pinned.revision if pinned else None, token, confirm)
    components = pinned.components if pinned and pinned.revision == commit else {}

    def choose(part_id: str, part_revision: str | None) -> str:
        return _choose_commit(part_id, part_revision, components.get(part_id), token, confirm)

    target = pipelines_dir(weights_dir) / f"{repo_id.rpartition('/')[2]}@{commit[:REVISION_CHARS]}"
    known = _verified_manifest(target)
    if known is not None:
        (target / MANIFEST_FILE).touch()  # `find_pipeline` loads the pipeline with the newest manifest
        return PinnedPipeline(target, known)
    with _scratch(target.parent) as scratch:
        _download(repo_id, commit, _KEPT_SUFFIXES, scratch, token, report)
        components = _fetch_parts(scratch, token, report, choose)
        return _move_into_place(scratch, target, pin(scratch, source=repo_id, revision=commit, components=components))


def copy_pipeline(weights_dir: Path, source: Path) -> PinnedPipeline:
    """Copy a pipeline from a directory, such as one that was fetched on a machine with access to the hub.

    A `manifest.json` in it is verified and kept; without one the files are pinned as they are.

    Raises:
        NotAPipeline: it is no pipeline, or takes parts from elsewhere.
        PipelineChanged: its files do not match its manifest.
        OSError: it cannot be read, or the copy cannot be written.
    """
    read_config(source)  # before anything is copied: it may be a whole disk that was named
    known = read_manifest(source / MANIFEST_FILE)
    remedy = "Copy it again from where it was fetched."
    if known is not None:
        verify_files(source, known, remedy=remedy)
    with _scratch(pipelines_dir(weights_dir)) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", MANIFEST_FILE))
        if known is not None:
            verify_files(scratch, known, remedy=remedy)  # again: it may have changed while it was copied
        manifest = pin(
            scratch,
            source=known.source if known else str(source.resolve()),
            revision=known.revision if known else None,
            components=known.components if known else None,
        )
        name = known.source.rpartition("/")[2] if known else source.resolve().name.partition("@")[0]
        target = pipelines_dir(weights_dir) / f"{name}@{manifest.revision[:REVISION_CHARS]}"
        return _move_into_place(scratch, target, manifest)


def check_access(repo_id: str, token: HubToken | None) -> None:
    """Ask the hub whether this token gives access to this pipeline; nothing is fetched.

    Raises:
        HubError: it gives no access, or the hub cannot be reached.
    """
    with _explained(repo_id, token):
        HfApi(token=_secret(token)).auth_check(repo_id)


def explain(error: Exception, repo_id: str, token: HubToken | None) -> EngineError:
    """Return an error of ours that explains an error of huggingface_hub and names the next step."""
    if isinstance(error, GatedRepoError):
        return LicenceNotAccepted(repo_id, token.source) if token else TokenMissing(repo_id)
    if isinstance(error, OfflineModeIsEnabled):
        return HubUnreachable("HF_HUB_OFFLINE is set: unset it for this one command")
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (_UNAUTHORIZED, _FORBIDDEN) and token:
        return TokenRefused(token.source)
    if isinstance(error, RevisionNotFoundError):
        return NotOnHub(f"{repo_id} has no such revision. Look for it on {HUB_PAGE}/{repo_id}/commits/main")
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return NotOnHub(
            f"there is no {repo_id} on the hub, or it is private and the token may not see it. Check the spelling "
            f"(owner/name) on {HUB_PAGE}/{repo_id}"
        )
    if isinstance(error, LocalEntryNotFoundError):
        return HubUnreachable(_reason(error.__cause__ or error))
    if isinstance(error, EntryNotFoundError):
        return NotOnHub(f"a file of {repo_id} is listed on the hub and not there. Try another --revision.")
    if isinstance(error, HfHubHTTPError):
        code = error.response.status_code
        what = "it asks for a pause" if code == _TOO_MANY else "it is down" if code >= _SERVER_ERROR else "it refused"
        return HubUnreachable(f"{what} (HTTP {code}); try again later")
    return HubUnreachable(_reason(error))


@contextmanager
def _explained(repo_id: str, token: HubToken | None) -> Iterator[None]:
    try:
        yield
    except (
        HfHubHTTPError,
        HFValidationError,
        EntryNotFoundError,
        OfflineModeIsEnabled,
        XetDownloadError,
        httpx2.HTTPError,
    ) as error:
        raise explain(error, repo_id, token) from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'}"


def _secret(token: HubToken | None) -> str | bool:
    return token.secret if token else False  # False: do not use the token that `hf auth login` stored either


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=parent, ignore_cleanup_errors=True) as scratch:
        directory = Path(scratch) / "pipeline"
        directory.mkdir()
        yield directory


def _verified_manifest(target: Path) -> Manifest | None:
    """Return the manifest of a directory whose files match it; None where the pipeline must be fetched."""
    try:
        manifest = read_manifest(target / MANIFEST_FILE)
        if manifest is not None:
            verify_files(target, manifest, remedy="")
    except (PipelineChanged, ManifestUnreadable):
        return None
    return manifest


def _move_into_place(scratch: Path, target: Path, manifest: Manifest) -> PinnedPipeline:
    write_manifest(scratch / MANIFEST_FILE, manifest)
    if target.exists():
        shutil.rmtree(target)
    scratch.rename(target)
    return PinnedPipeline(target, manifest)


def _download(
    repo_id: str,
    commit: str,
    suffixes: tuple[str, ...],
    directory: Path,
    token: HubToken | None,
    report: Callable[[str, float], None],
) -> None:
    """Fetch the files of one commit whose names have these suffixes; compare each with the digest the hub lists."""
    secret = _secret(token)
    with _explained(repo_id, token):
        tree = HfApi(token=secret).list_repo_tree(repo_id, recursive=True, revision=commit)
        files = [entry for entry in tree if isinstance(entry, RepoFile) and entry.path.endswith(suffixes)]
    if not files:
        raise NotAPipeline(f"{repo_id} has none of the files of a pipeline ({', '.join(suffixes)}). Name another.")
    for file, done in zip(files, _fractions(file.size for file in files), strict=True):
        report(f"{repo_id.rpartition('/')[2]}: {file.path}", done)
        with _explained(repo_id, token):
            path = hf_hub_download(repo_id, file.path, revision=commit, local_dir=directory, token=secret)
        if not _is_listed_file(Path(path), file):
            raise WrongFile(repo_id, file.path)
    shutil.rmtree(directory / ".cache", ignore_errors=True)  # written there by huggingface_hub


def _fractions(sizes: Iterable[int]) -> list[float]:
    """Return, for each of these files, the share of all bytes that comes before it, 0 to 1."""
    listed = list(sizes)
    total = max(sum(listed), 1)
    return [sum(listed[:index]) / total for index in range(len(listed))]


def _is_listed_file(path: Path, listed: RepoFile) -> bool:
    content = path.read_bytes()
    if listed.lfs is not None:
        return hashlib.sha256(content).hexdigest() == listed.lfs.sha256
    # Small files are git blobs, named by the sha1 of this header and their bytes.
    blob = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    blob.update(content)
    return blob.hexdigest() == listed.blob_id


def _choose_commit(
    repo_id: str,
    revision: str | None,
    pinned: str | None,
    token: HubToken | None,
    confirm: Callable[[str, str], bool],
) -> str:
    if revision is None and pinned is not None:
        return pinned
    with _explained(repo_id, token):
        commit = str(HfApi(token=_secret(token)).model_info(repo_id, revision=revision).sha)
    if not _COMMIT.fullmatch(commit):  # it becomes part of a path
        raise NotOnHub(f"{repo_id}: the hub names {commit[:40]!r}, which is no commit. Look at HF_ENDPOINT.")
    if commit not in (revision, pinned) and not confirm(repo_id, commit):
        raise NotConfirmed(repo_id, commit)
    return commit


def _fetch_parts(
    directory: Path,
    token: HubToken | None,
    report: Callable[[str, float], None],
    choose: Callable[[str, str | None], str],
) -> dict[str, str]:
    """Fetch the parts that a config takes from other repositories, and rewrite it to take them from its own directory.

    Returns:
        The commit of each of these repositories.
    """
    config = read_config(directory)
    document = config.document
    components: dict[str, str] = {}
    for name in PARTS:
        repo_id, subfolder, revision = _part_source(name, config.parts.get(name))
        if repo_id is None:
            continue
        suffixes = PLDA_FILES if name == "plda" else (f"{subfolder}/{CHECKPOINT}" if subfolder else CHECKPOINT,)
        commit = components.get(repo_id) or choose(repo_id, revision)
        elsewhere = directory / f".{name}"
        _download(repo_id, commit, tuple(suffixes), elsewhere, token, report)
        shutil.move(elsewhere / subfolder, directory / name)
        shutil.rmtree(elsewhere, ignore_errors=True)
        components[repo_id] = commit
        document["pipeline"].setdefault("params", {})[name] = f"{INSIDE}{name}"
    if components:
        (directory / CONFIG_FILE).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return components


def _part_source(name: str, value: Any) -> tuple[str | None, str, str | None]:  # noqa: ANN401 - whatever YAML held
    """Return the repository, folder and revision of a part; no repository where the part is in the directory."""
    if value is None:  # pyannote.audio 4 takes it from there by default
        return DEFAULT_PIPELINE, name, None
    if isinstance(value, str) and not value.startswith(INSIDE) and value.count("/") == 1:
        repo_id, _, revision = value.partition("@")
        return repo_id, "", revision or None
    return None, "", None
