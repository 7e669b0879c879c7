"""The command `omi-agent qualify`: whether *stretch* may run on this machine, and whether the engine is fast enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from broker.program import explain_file_error
from broker.terminal import print_json
from mac_agent.commands.terminal import (
    EXIT_AUDIO,
    EXIT_FAILED,
    EXIT_NO_ENGINE,
    EXIT_NOT_QUALIFIED,
    AsJson,
    ConfigFile,
    DataDir,
    Device,
    Threads,
    check_inputs,
    err,
    fail,
    load,
    out,
    progress,
)

if TYPE_CHECKING:
    from mac_agent.qualify import Qualification
    from mac_agent.settings import AgentSettings
    from mac_agent.weights.verdict import Comparison


def qualify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Recordings of your own.", exists=True, dir_okay=False),
    ] = None,
    *,
    pipeline: Annotated[
        Path | None, typer.Option("--pipeline", help="A trusted pipeline directory (OMI_PIPELINE_DIR).")
    ] = None,
    latency: Annotated[bool, typer.Option(help="Also time 30 s, 60 s and 5 min of audio.")] = True,
    device: Device = None,
    threads: Threads = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Find out whether the fast mode of the pyannote engine is as good as the exact one, with your weights, here.

    Runs both modes over a telephone call that pyannote.audio brings along and over the files you give, and compares
    them. Stretch passes with a DER of at most 0.5 points against exact and no cosine of a speaker's embeddings below
    0.98. The verdict is kept; an agent that starts on the same weights, device and versions then runs stretch, and
    exact without one that passed. Give recordings like those the agent will hear: half a minute proves little.

    Also says whether warm 30 s, 60 s and 5 min of audio take less than 5, 6 and 30 s.

    Exit codes: 0 stretch passed; 6 it did not, and exact goes on; 4 the pipeline cannot be loaded; 5 a file cannot be
    decoded; 1 and 2 as everywhere.

    Example: [bold]omi-agent qualify meeting.m4a lunch.wav[/bold]

    Example: [bold]omi-agent qualify --no-latency --json[/bold]

    Example: [bold]omi-agent trust ~/models/mine && omi-agent qualify --pipeline ~/models/mine[/bold]
    """
    from mac_agent.agent import is_running

    check_inputs(files or [])
    settings = load(config, pipeline_dir=pipeline, device=device, threads=threads, data_dir=data_dir).settings
    if is_running(settings.data_dir):
        err.print("[yellow]note:[/yellow] an agent works here too; its jobs make the times below longer")
    found = _qualify(settings, files or [], with_latencies=latency)
    if as_json:
        print_json(_described(found))
    else:
        _show(found)
    if not found.verdict.passed:
        raise typer.Exit(EXIT_NOT_QUALIFIED)


def _qualify(settings: AgentSettings, files: list[Path], *, with_latencies: bool) -> Qualification:
    """Run the qualification behind a progress bar; an error ends the program with its exit code."""
    from mac_agent.diarize import DiarizeFailed
    from mac_agent.errors import EngineError
    from mac_agent.qualify import RecordingRefused
    from mac_agent.qualify import qualify as run

    try:
        with progress() as show:
            return run(settings, files, report=show, with_latencies=with_latencies)
    except EngineError as error:
        fail(str(error), EXIT_NO_ENGINE)
    except RecordingRefused as error:
        fail(str(error), EXIT_AUDIO)
    except DiarizeFailed as error:
        fail(f"{error} ({error.code.value})", EXIT_FAILED)
    except OSError as error:
        fail(explain_file_error(error), EXIT_FAILED)


def _described(found: Qualification) -> dict[str, Any]:
    return {
        "verdict": found.verdict.model_dump(mode="json"),
        "latencies": [{**vars(each), "is_kept": each.is_kept} for each in found.latencies],
        "promised_audio": found.promised_audio,
        "load_per_core": round(found.load_per_core, 2),
        "file": str(found.file),
    }


def _show(found: Qualification) -> None:
    from mac_agent.weights.verdict import pool

    verdict = found.verdict
    table = Table("recording", "audio", "DER %", "changed", "cosine", "exact", "stretch", "faster")
    rows = [*verdict.comparisons, *([pool(verdict.comparisons)] if len(verdict.comparisons) > 1 else [])]
    for each in rows:
        table.add_row(*_cells(each))
    out.print(table)
    if found.latencies:
        table = Table("promised", "mode", "took", "")
        for latency in found.latencies:
            mark = "[green]pass[/green]" if latency.is_kept else "[red]fail[/red]"
            promised = f"{latency.audio_s:.0f} s of audio in < {latency.limit_s:.0f} s"
            table.add_row(promised, latency.mode, f"{latency.took_s:.1f} s", mark)
        out.print(table)
        out.print(f"Warm, decoding included. {'; '.join(found.promised_audio)}.", markup=False)
    if found.load_per_core > 1:
        out.print(f"Other programs were at work ({found.load_per_core:.1f} for every core): a quiet machine is faster.")
    now = verdict.circumstances
    out.print(f"{verdict.source} on {now.device}, torch {now.torch}, {now.machine}", markup=False)
    if verdict.passed:
        out.print("[green]Stretch passed.[/green] The agent runs it from its next start on, at the latest.")
    else:
        out.print("[red]Stretch did not pass[/red]; the agent runs exact:", end=" ")
        out.print("; ".join(verdict.reasons), markup=False)
    out.print(f"Kept in {found.file}", markup=False)


def _cells(each: Comparison) -> tuple[str, ...]:
    cosine = f"{min(each.cosines):.3f}" if each.cosines else "-"
    times = (f"{each.exact_s:.1f} s", f"{each.stretch_s:.1f} s", f"{each.speed_up:.1f}x")
    return each.recording, f"{each.audio_s:.0f} s", f"{100 * each.der:.2f}", f"{each.changed_s:.2f} s", cosine, *times
