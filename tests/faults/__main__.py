"""`make chaos JOBS=1000 SEED=7`: one chaos run and its report, with the place of the logs if something is wrong."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pytest
import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.brokers import require_program
from tests.faults.chaos import ChaosOutcome, RunProgress, new_seed, run_both
from tests.faults.plan import FaultKind, Plan, make_plan
from tests.faults.planted import PlantedBug, plan_for

FIRST_DIFFERENCES = 20
FAULTS_PER_JOB = 0.2
EXIT_DIFFERENT, EXIT_NOTHING_TO_RUN = 1, 2
_out = Console()


def main(  # noqa: PLR0917 - typer hands options over by name
    jobs: Annotated[int, typer.Option(help="Payloads; each becomes one job.", min=2)] = 1_000,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same plan. Default: a new one.")] = None,
    faults: Annotated[int | None, typer.Option(help="How many. Default: one for every five jobs.", min=0)] = None,
    conversations: Annotated[int | None, typer.Option(help="Default: one for every twenty jobs.", min=2)] = None,
    kinds: Annotated[str | None, typer.Option(help="Only these kinds, e.g. KILL_AGENT,HALF_OPEN.")] = None,
    nap_s: Annotated[float, typer.Option(help="The longest time a job takes.")] = 0.2,
    stall_s: Annotated[float, typer.Option(help="Give up once nothing has moved for so long.")] = 120.0,
    plant: Annotated[PlantedBug | None, typer.Option(help="Plant a bug, and run the plan that must find it.")] = None,
    record: Annotated[Path | None, typer.Option(help="Append the report to this file.")] = None,
    keep: Annotated[bool, typer.Option(help="Keep the directory also where all is well.")] = False,
) -> None:
    """Send conversations through real processes, undisturbed and, beside it, with faults. Both must end the same.

    Example: python -m tests.faults --jobs 100 --seed 7
    """
    _prepare()
    only = [FaultKind[name] for name in kinds.split(",")] if kinds else None
    planned = round(jobs * FAULTS_PER_JOB) if faults is None else faults
    seed = new_seed() if seed is None else seed
    plan = make_plan(seed, jobs=jobs, faults=planned, conversations=conversations, kinds=only)
    if plant is not None:
        plan = plan_for(plant, seed)
    directory = Path(tempfile.mkdtemp(prefix="omi-chaos-"))
    _out.print(f"seed {seed}, {plan.jobs} jobs in {len(plan.conversations)} conversations; logs in {directory}")
    with _bar() as bar:
        calm, chaos = run_both(
            plan, directory, max_nap_s=nap_s, stall_s=stall_s, plant=plant, report=_progress_of(bar, plan.jobs)
        )
    report = _report(plan, calm, chaos, plant)
    _out.print(report, highlight=False, markup=False, soft_wrap=True)
    if record is not None:
        with record.open("a", encoding="utf-8") as file:
            file.write(f"{report}\n\n")
    wrong = [*(f"without faults: {what}" for what in calm.wrong), *chaos.wrong]
    if wrong:
        _print_wrong(wrong, directory)
        extra = f' ARGS="--plant {plant}"' if plant else ""
        _out.print(f"again: make chaos JOBS={jobs} SEED={seed}{extra}")
        raise typer.Exit(EXIT_DIFFERENT)
    if not keep:
        shutil.rmtree(directory)


def _print_wrong(wrong: list[str], directory: Path) -> None:
    for what in wrong[:FIRST_DIFFERENCES]:
        _out.print(f"  - {what}", style="red", highlight=False, markup=False)
    _out.print(f"{len(wrong)} things are wrong. Logs, ledger and store: {directory}", style="bold red")


def _prepare() -> None:
    """Check for Mosquitto, let every signal to stop end all processes, and silence the log of this process."""
    try:
        require_program("mosquitto", "mosquitto")
    except pytest.skip.Exception as missing:
        _out.print(str(missing), style="red")
        raise typer.Exit(EXIT_NOTHING_TO_RUN) from None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # ends every process, also where started with `&`
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _progress_of(bar: Progress, jobs: int) -> Callable[[str, RunProgress], None]:
    """Return a function that shows the progress of both runs."""
    tasks = {name: bar.add_task(name, total=2 * jobs, faults="") for name in ("calm", "chaos")}

    def show(name: str, progress: RunProgress) -> None:
        faults = f"{progress.faults}/{progress.of_faults} faults" if progress.of_faults else ""
        bar.update(tasks[name], completed=progress.accepted + progress.ended, faults=faults)

    return show


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:5}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[faults]}"),
        TimeElapsedColumn(),
        console=_out,
    )


def _report(plan: Plan, calm: ChaosOutcome, chaos: ChaosOutcome, plant: PlantedBug | None) -> str:
    """Return the report in Markdown."""
    injected = chaos.injected
    kinds: Counter[str] = Counter({str(kind): count for kind, count in injected.by_kind.items()})
    deletions = sum(conversation.delete_after is not None for conversation in plan.conversations)
    if deletions:
        kinds[str(FaultKind.DELETION)] = deletions
    slowest = max(injected.recoveries, key=lambda recovery: recovery.took_s, default=None)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [
        f"### Seed {plan.seed}: {'PASSED' if not calm.wrong + chaos.wrong else 'FAILED'}",
        "",
        f"{datetime.now(UTC):%F %H:%M} UTC, {machine}" + (f", planted bug: {plant}" if plant else ""),
        "",
        f"- {plan.jobs} payloads in {len(plan.conversations)} conversations, {deletions} of them deleted in the middle",
        f"- {sum(chunk.is_for_door for each in plan.conversations for chunk in each.chunks)} payloads by the HTTP door",
        f"- {plan.poisoned} payloads that kill every worker",
        f"- {calm.took_s:.0f} s without faults, {chaos.took_s:.0f} s with them",
        "- CPU without faults, per payload: "
        + ", ".join(f"{name} {1000 * used / plan.jobs:.0f} ms" for name, used in calm.cpu_s.items()),
        f"- {kinds.total()} faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
        f"- {injected.repeated} messages said again by the harness",
        f"- {chaos.tries} sendings by the backend, {calm.tries} without faults",
        f"- {len(injected.recoveries)} recoveries"
        + (
            f", the slowest {slowest.took_s:.1f} s after {slowest.fault.kind} {slowest.fault.target}".rstrip()
            if slowest
            else ""
        ),
        *(f"- skipped {count}: {why}" for why, count in injected.skipped.items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
