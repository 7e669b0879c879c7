"""`omi-agent`: run the agent, diarize one file, show settings; the modules beside this one hold the other commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from broker.errors import BrokerError
from broker.program import ProgramGroup, explain_file_error, run_program
from broker.terminal import print_json
from broker.version import VersionOption
from mac_agent.commands.calibrate import calibrate
from mac_agent.commands.doctor import doctor
from mac_agent.commands.join import join
from mac_agent.commands.qualify import qualify
from mac_agent.commands.service import install, logs, status, uninstall
from mac_agent.commands.terminal import (
    EXIT_AUDIO,
    EXIT_FAILED,
    EXIT_NO_ENGINE,
    EXIT_SECOND_INSTANCE,
    EXIT_USAGE,
    AsJson,
    ConfigFile,
    DataDir,
    Device,
    EngineName,
    Threads,
    check_inputs,
    check_outputs,
    engine_loader,
    err,
    fail,
    load,
    out,
    progress,
)
from mac_agent.commands.weights import engines, fetch_model, trust

if TYPE_CHECKING:
    from mac_agent.engines.engine import Hints, Turn
    from mac_agent.inference import JobResult, LoadEngine
    from mac_agent.settings import AgentSettings

app = typer.Typer(
    cls=ProgramGroup,
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
    5 the audio cannot be diarized; 6 the fast mode did not pass (qualify).
    """,
)


@app.callback()
def omi_agent(*, version: VersionOption = False) -> None:
    """Take the options that stand before a command."""


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
    from mac_agent.engine_choice import choose_engine

    settings = load(
        config,
        agent_id=agent_id,
        engine=engine,
        device=device,
        threads=threads,
        broker_url=broker_url,
        data_dir=data_dir,
    ).settings
    configure_logs(as_json=settings.log_json)
    choice = choose_engine(settings)  # once: the engine must stay the same while the agent runs
    settings = settings.model_copy(update={"engine": choice.engine})
    run_agent(settings, engine_loader(settings), choice.reason)


def run_agent(settings: AgentSettings, load_engine: LoadEngine, engine_reason: str = "") -> None:
    """Run an agent in this process until SIGTERM, SIGINT or SIGHUP; ends the program with its exit code."""
    import resource

    from broker.freed_memory import MESSAGES_BYTES, keep_freed_memory
    from broker.stop_signals import call_on_stop
    from mac_agent.agent import Agent, AgentError, EngineUnavailable, SecondInstance
    from mac_agent.inbox import InboxError
    from mac_agent.outbox import OutboxError

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold audio
    keep_freed_memory(MESSAGES_BYTES)
    agent = Agent(settings, load_engine, engine_reason)
    call_on_stop(lambda *_: agent.request_stop())
    try:
        agent.run()
    except SecondInstance as error:
        fail(str(error), EXIT_SECOND_INSTANCE)
    except EngineUnavailable as error:
        fail(str(error), EXIT_NO_ENGINE)
    except (AgentError, InboxError, OutboxError, BrokerError) as error:
        fail(str(error), EXIT_FAILED)
    except OSError as error:
        fail(explain_file_error(error), EXIT_FAILED)


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
    from mac_agent.engines.engine import Hints

    check_inputs([file])
    check_outputs({"--rttm": rttm, "--plot": plot}, [file] if reference is None else [file, reference])
    settings = load(config, engine=engine, device=device, threads=threads, data_dir=data_dir).settings
    result = _diarize(file, settings, Hints(num_speakers=num_speakers, max_speakers=max_speakers))
    _save(result, file, rttm, plot, reference)
    _show(result, as_json=as_json)


@app.command("config")
def show_config(data_dir: DataDir = None, config: ConfigFile = None, *, as_json: AsJson = False) -> None:
    """Show every setting, its value, where it came from and what it means; secrets are masked.

    Example: [bold]omi-agent config --json[/bold]
    """
    from broker.settings import print_settings

    print_settings(load(config, data_dir=data_dir), as_json=as_json)


def _diarize(file: Path, settings: AgentSettings, hints: Hints) -> JobResult:
    """Diarize a file behind a progress bar; an error ends the program with its exit code."""
    from mac_agent.diarize import DiarizeFailed, diarize_file
    from mac_agent.errors import EngineError
    from mac_agent.worker import read_limits

    try:
        with progress() as show:
            return diarize_file(
                file,
                engine_loader(settings),
                hints=hints,
                limits=read_limits(settings),
                max_audio_s=settings.max_audio_s,
                report=show,
            )
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", EXIT_USAGE)
    except EngineError as error:
        fail(str(error), EXIT_NO_ENGINE)
    except DiarizeFailed as error:
        is_audio = error.code.value.startswith("audio.")
        fail(f"{file.name}: {error} ({error.code.value})", EXIT_AUDIO if is_audio else EXIT_FAILED)


def _save(result: JobResult, file: Path, rttm: Path | None, plot: Path | None, reference: Path | None) -> None:
    from broker.text_files import read_text
    from mac_agent.rttm import RttmMalformed, read_rttm, write_rttm
    from mac_agent.timeline import draw_timeline
    from schemas.text import split_lines

    turns = result.diarization.turns
    try:
        if rttm is not None:
            with rttm.open("w", encoding="utf-8") as stream:
                write_rttm(stream, turns, file_id=file.stem)
        if plot is not None:
            lanes = {"result": turns}
            if reference is not None:
                lanes = {"reference": tuple(read_rttm(split_lines(read_text(reference)))), **lanes}
            draw_timeline(plot, lanes, result.duration_s, file.name)
    except (OSError, RttmMalformed, ValueError) as error:
        fail(f"the result could not be written: {error}", EXIT_FAILED)


def _show(result: JobResult, *, as_json: bool) -> None:
    found = result.diarization
    if as_json:
        print_json(
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
            }
        )
        return
    table = Table("from", "to", "speaker")
    for turn in found.exclusive_turns:
        table.add_row(f"{turn.start_s:9.2f}", f"{turn.end_s:9.2f}", turn.speaker)
    out.print(table)
    took_s = result.timings_ms.get("total", 0.0) / 1000
    out.print(
        f"{len(found.speakers)} speakers, {found.speech_s:.1f} s of speech in {result.duration_s:.1f} s; "
        f"took {took_s:.1f} s with {result.info.name} ({result.info.mode}) on {result.info.device}."
    )
    for warning in result.warnings:
        err.print("warning:", style="yellow", end=" ")
        err.print(warning, markup=False)


def _turn_row(turn: Turn) -> dict[str, Any]:
    return {"start_s": round(turn.start_s, 3), "end_s": round(turn.end_s, 3), "speaker": turn.speaker}


app.command("fetch-model")(fetch_model)
app.command()(trust)
app.command()(engines)
app.command()(qualify)
app.command()(calibrate)
app.command()(doctor)
app.command()(join)
app.command()(install)
app.command()(uninstall)
app.command()(status)
app.command()(logs)


def main() -> None:
    """Entry point of the console command."""
    run_program(app)


if __name__ == "__main__":
    main()
