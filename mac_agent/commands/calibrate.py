"""The command `omi-agent calibrate`: how similar a voice must be to be given a name, by one's own recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from broker.program import explain_file_error
from broker.terminal import print_json
from mac_agent.commands.terminal import (
    EXIT_AUDIO,
    EXIT_FAILED,
    EXIT_NO_ENGINE,
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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mac_agent.calibrate import Calibration
    from mac_agent.settings import AgentSettings
    from mac_agent.threshold import Rate


def calibrate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Recordings, or folders of them.", exists=True)
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the rules for the bridge here (JSON).", dir_okay=False)
    ] = None,
    engine: EngineName = None,
    device: Device = None,
    threads: Threads = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Find out how similar a voice must be to be given a person's name, with your engine and your recordings.

    Put the recordings of each person into a folder of their own: voices/anna/lunch.m4a, voices/anna/walk.wav,
    voices/ben/… The folder's name is who speaks, and nobody else may speak in them. At least 5 people with two
    recordings of a minute each, better 20 people, recorded as they will be heard: by that microphone, on several days.

    Chooses the threshold and the margin that give at most 1 of 100 strangers a name, and tells how often people are not
    recognised then. Both are measured on people who had no part in the choice, with 95 % intervals.

    With --output it writes a file; point the bridge at it: OMI_PEOPLE_RULES=/path/people-rules.json. Rules of other
    models in the file are kept. Recordings are only read, and nothing of them is kept.

    Example: [bold]omi-agent calibrate voices/[/bold]

    Example: [bold]omi-agent calibrate voices/ --output people-rules.json[/bold]

    Example: [bold]omi-agent calibrate voices/anna voices/ben voices/cleo more/* --engine embedded --json[/bold]
    """
    settings = load(config, engine=engine, device=device, threads=threads, data_dir=data_dir).settings
    from mac_agent.calibrate import find_recordings

    recordings = find_recordings(files)
    check_inputs(recordings)
    check_outputs({"--output": output}, recordings)
    found = _calibrate(settings, recordings)
    if output is not None:
        _write(found, output)
    if as_json:
        print_json({**found.rules.model_dump(mode="json"), "recordings": dict(found.people)})
    else:
        _show(found)


def _calibrate(settings: AgentSettings, recordings: Mapping[Path, str]) -> Calibration:
    """Run the calibration behind a progress bar; an error ends the program with its exit code."""
    from mac_agent.calibrate import RecordingRepeated, TooFewVoices
    from mac_agent.calibrate import calibrate as run
    from mac_agent.diarize import DiarizeFailed
    from mac_agent.errors import EngineError
    from mac_agent.qualify import RecordingRefused

    try:
        with progress() as show:
            return run(settings, recordings, engine_loader(settings), report=show)
    except EngineError as error:
        fail(str(error), EXIT_NO_ENGINE)
    except (TooFewVoices, RecordingRepeated) as error:
        fail(str(error), EXIT_USAGE)
    except RecordingRefused as error:
        fail(str(error), EXIT_AUDIO)
    except DiarizeFailed as error:
        fail(f"{error} ({error.code.value})", EXIT_FAILED)
    except OSError as error:
        fail(explain_file_error(error), EXIT_FAILED)


def _write(found: Calibration, output: Path) -> None:
    from broker.private_files import replace_file
    from mac_agent.calibrate import RulesUnreadable, merge_rules

    try:
        replace_file(output, merge_rules(output, found.rules), mode=0o644)  # for the bridge, another user
    except RulesUnreadable as error:
        fail(str(error), EXIT_USAGE)
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}", EXIT_FAILED)
    err.print(f"Written to {output}. For the bridge: OMI_PEOPLE_RULES={output.absolute()}", markup=False)


def _show(found: Calibration) -> None:
    rules, errors = found.rules, found.errors
    out.print(f"{rules.embedding_space}: {len(found.people)} people, {rules.measured.voices} voices", markup=False)
    table = Table("", "seen", "rate", "95 % interval")
    table.add_row("strangers who are given a name", *_cells(errors.strangers_named))
    table.add_row("people who are given another's name", *_cells(errors.wrong_person))
    table.add_row("people who are not recognised", *_cells(errors.false_rejects))
    out.print(table)
    out.print(f"threshold {rules.threshold:.2f}, margin {rules.margin:.2f}; suggested from {rules.suggest_from:.2f} on")
    out.print("The intervals take voices as independent; those of one person are not: more people make them truer.")
    alone = sorted(name for name, count in found.people.items() if count == 1)
    if alone:
        names = ", ".join(alone)
        err.print("[yellow]note:[/yellow]", end=" ")
        err.print(f"one recording only of {names}: recognised in the same recording, which is too easy", markup=False)


def _cells(rate: Rate) -> tuple[str, str, str]:
    low, high = rate.interval
    return f"{rate.count} of {rate.trials}", f"{100 * rate.share:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"
