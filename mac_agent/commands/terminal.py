"""Options, exit codes and terminal output that the commands of `omi-agent` share."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from broker.errors import BrokerError
from broker.terminal import SafeConsole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from broker.settings import LoadedSettings
    from mac_agent.inference import LoadEngine
    from mac_agent.settings import AgentSettings

EXIT_FAILED, EXIT_USAGE, EXIT_SECOND_INSTANCE, EXIT_NO_ENGINE, EXIT_AUDIO = 1, 2, 3, 4, 5
EXIT_NOT_QUALIFIED = 6

out = SafeConsole(highlight=False, soft_wrap=True)
err = SafeConsole(stderr=True, highlight=False, soft_wrap=True)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where weights and results are kept (OMI_DATA_DIR).")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings (default: OMI_CONFIG).", dir_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="auto, pyannote or embedded (OMI_ENGINE); see `omi-agent engines`.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, mps or cuda (OMI_DEVICE).")]
Threads = Annotated[int | None, typer.Option("--threads", help="CPU threads (OMI_THREADS).", min=1)]


class ProgressLine:
    """A progress bar on stderr; calling it with (stage, fraction) moves it."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._task = bar, bar.add_task("starting", total=1.0)

    def __call__(self, stage: str, fraction: float) -> None:
        """Show how far the work has come, 0..1."""
        self._bar.update(self._task, description=stage, completed=fraction)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while a person is asked something."""
        self._bar.stop()
        yield
        self._bar.start()


@contextmanager
def progress() -> Iterator[ProgressLine]:
    """Show a progress bar on stderr while the work goes on."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        yield ProgressLine(bar)


def load(config_file: Path | None, **flags: object) -> LoadedSettings[AgentSettings]:
    """Load the settings; an invalid one ends the program with a line that names it."""
    from broker.settings import load_settings
    from mac_agent.settings import AgentSettings

    try:
        loaded = load_settings(AgentSettings, flags=flags, config_file=config_file, role="agent")
    except BrokerError as error:
        fail(str(error), EXIT_USAGE)
    for warning in loaded.warnings:
        err.print(f"omi-agent: {warning}", style="yellow", markup=False)
    return loaded


def engine_loader(settings: AgentSettings) -> LoadEngine:
    """Return a function that loads the chosen engine in the process that calls it."""
    from mac_agent.engine_choice import choose_engine
    from mac_agent.engines.registry import load_engine

    return partial(
        load_engine,
        choose_engine(settings).engine,
        data_dir=settings.weights,
        device=settings.device,
        threads=settings.threads,
        pipeline_dir=settings.pipeline_dir,
        verdicts_dir=settings.verdicts,
    )


def check_inputs(files: Iterable[Path]) -> None:
    """End the program where a file's end may never come, or it can be read only once, as with a pipe or a device."""
    for file in files:
        if file.exists() and not file.is_file():
            fail(f"{file} is no regular file: write the audio into one first, and give that.", EXIT_USAGE)


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path]) -> None:
    """End the program where an option names a file to write that is read too, or that another option names."""
    read = [(path, "is read: it would be overwritten") for path in inputs]
    for option, path in outputs.items():
        if path is None:
            continue
        if str(path) == "-":
            fail(f"{option} -: that is not stdout here. Name a file.", EXIT_USAGE)
        for other, why in read:
            if _is_same_file(path, other):
                fail(f"{option} {path}: {other} {why}. Name another file.", EXIT_USAGE)
        if not path.absolute().parent.is_dir():
            fail(f"{option} {path}: there is no folder {path.parent}. Make it, or name another file.", EXIT_USAGE)
        read.append((path, f"is what {option} writes"))


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return one.resolve() == other.resolve()


def fail(message: str, code: int) -> NoReturn:
    """Print the message on stderr and end the program with an exit code."""
    err.print("omi-agent:", style="red", end=" ")
    err.print(message, markup=False)
    raise typer.Exit(code)
