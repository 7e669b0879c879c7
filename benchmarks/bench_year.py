"""A year of a necklace in ledger and store: 365 days of 16 hours of audio, and how long commands take then.

    python -m benchmarks.bench_year               a year
    python -m benchmarks.bench_year --days 20     less

Eight conversations of 40 minutes are written, labelled and packed by the bridge's own functions; a day is three times
these, and the days before the last three are copies of it under ids of their own. The last three days are written anew,
and as the bridge keeps them: with voice samples, and not packed yet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import structlog
from rich.console import Console
from rich.progress import Progress

from benchmarks.ledger_copies import PackedConversation, add_copy, count_bytes, make_older, read_packed
from benchmarks.simulated_day import DayShape, SimulatedDay
from vps_bridge.compaction import Compaction
from vps_bridge.conversations.sqlite import STORE_FILE
from vps_bridge.database import Database
from vps_bridge.http.reading import list_conversations, list_jobs, read_status
from vps_bridge.intake.spool import Spool
from vps_bridge.ledger.ledger import FILE_NAME
from vps_bridge.retention import Retention

REPORT = Path(__file__).with_name("year.md")
DRAWN = 8
"""Of a day's conversations so many are drawn; the others are copies of these."""
WITH_SAMPLES_DAYS = 3
"""As `keep_samples_s` and `keep_details_s` have it by default."""
WITH_VOICES_DAYS = 30
"""As `keep_voices_s` has it."""
LOG_ERRORS = 40
RUNS = 3
"""Of each command: the first that needs much memory may wait until a virtual machine has it from its host."""
MIB = 2**20


@dataclass(frozen=True)
class YearMeasurement:
    """What was measured."""

    days: int
    conversations: int
    day_bytes: dict[str, int]
    """By table, of one day as it comes: with voice samples, not packed."""
    packed_day_bytes: float
    """Of one day in ledger and store, long after."""
    file_bytes: dict[str, int]
    year_bytes: dict[str, int]
    """By table, the largest."""
    commands_s: dict[str, tuple[float, float, float]]
    """Of the whole process, with Python's start, which `--help` is: median and longest of `RUNS` by the clock, and of
    the processor in the median one."""
    lists_s: dict[str, float]
    """As the page asks for them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--data", type=Path, help="write it there, and leave it")
    parser.add_argument("--json", action="store_true", help="numbers for a program instead of a table")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(LOG_ERRORS))
    with tempfile.TemporaryDirectory() as scratch, Progress(console=Console(stderr=True), transient=True) as progress:
        outcome = measure(options.data or Path(scratch), options.days, progress)
    report = render(outcome)
    print(json.dumps(asdict(outcome), indent=2) if options.json else report)
    if options.days == 365:
        machine = f"{platform.platform(terse=True)}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
        head = f"# A year\n\nWritten by `make bench-year` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; do not edit."
        REPORT.write_text(f"{head}\n{machine}; Python {platform.python_version()}.\n\n{report}", encoding="utf-8")


def measure(data_dir: Path, days: int, progress: Progress) -> YearMeasurement:
    """Write the year, and measure."""
    task = progress.add_task("a day, labelled", total=days)
    day = SimulatedDay(data_dir)
    ledger, store = files_of(day)
    day_bytes, packed_day_bytes = write_year(day, days, lambda: progress.advance(task))
    conversations = len(day.ledger.listing.latest_first())
    day.ledger.forget_deleted_pages()
    day.store.forget_deleted_pages()
    year_bytes = _sum_tables(count_bytes(ledger), count_bytes(store))
    lists_s = time_lists(day)
    newest, oldest = (day.ledger.listing.latest_first()[place] for place in (0, -1))
    day.close()
    progress.update(task, description="commands")
    file_bytes = {name: (day.settings.root / name).stat().st_size for name in (FILE_NAME, STORE_FILE)}
    commands_s = time_commands(data_dir, newest, oldest)
    return YearMeasurement(
        days, conversations, day_bytes, packed_day_bytes, file_bytes, year_bytes, commands_s, lists_s
    )


def files_of(day: SimulatedDay) -> tuple[Database, Database]:
    """Return the two files: copies of rows, and what tables take, are no business of the ledger's."""
    ledger, store = day.ledger._database, day.store._database  # noqa: SLF001
    assert isinstance(ledger, Database)
    return ledger, store


def write_year(day: SimulatedDay, days: int, advance: Callable[[], None]) -> tuple[dict[str, int], float]:
    """Write all days; return what one takes as it comes, by table, and once it is packed and its voices forgotten."""
    ledger, store = files_of(day)
    shape, some = DayShape(), DayShape(conversations=DRAWN + 1)  # the newest one is never packed
    day.add(some)
    as_it_comes = _sum_tables(count_bytes(ledger), count_bytes(store))
    scale = shape.conversations / some.conversations
    make_older(ledger, WITH_SAMPLES_DAYS + 1.0)
    _keep_house(day)
    with_voices = read_packed(ledger, store)
    make_older(ledger, float(WITH_VOICES_DAYS))
    _keep_house(day)
    packed = read_packed(ledger, store)
    sizes = sum(day.ledger.packs.sizes()) + sum(day.store.packed_sizes())
    for number in range(days - WITH_SAMPLES_DAYS):
        age_days = days - number
        kept = packed if age_days > WITH_VOICES_DAYS else with_voices
        older_days = age_days - (2 if kept is with_voices else WITH_VOICES_DAYS + 2)
        _copy_day(day, kept * (shape.conversations // DRAWN), older_days, readable=number == 0)
        advance()
    for number in range(WITH_SAMPLES_DAYS):
        day.add(shape, day=days + number)
        advance()
    day_bytes = {name: round(scale * size) for name, size in as_it_comes.items()}
    return day_bytes, shape.conversations / len(packed) * sizes


def _copy_day(day: SimulatedDay, kept: Sequence[PackedConversation], older_days: float, *, readable: bool) -> None:
    for found in kept:
        name = found.name[:-12] + secrets.token_hex(6)
        ledger, store = files_of(day)
        add_copy(ledger, store, found, name, 86_400.0 * older_days, readable=readable)


def _keep_house(day: SimulatedDay) -> None:
    """Do what the bridge does by and by: settle samples, forget voices, pack, give room back."""
    nothing = cast("Any", SimpleNamespace(clean_up=lambda _now_s: None, is_held=True))
    parts = {"ingest": nothing, "dispatcher": nothing, "disk_reserve": nothing}
    retention = Retention(day.settings, day.ledger, Spool(day.settings.root / "spool"), day.store, **parts)
    for _ in range(20):
        retention.sweep(0.0)
    compaction, now_s = Compaction(day.settings, day.ledger, day.store), 0.0
    while compaction.step(now_s):
        now_s += 1_000.0


def _sum_tables(ledger: dict[str, int], store: dict[str, int]) -> dict[str, int]:
    found = {f"ledger {name}": size for name, size in ledger.items()}
    found |= {f"store {name}": size for name, size in store.items()}
    return dict(sorted(found.items(), key=lambda one: -one[1])[:14])


def time_lists(day: SimulatedDay) -> dict[str, float]:
    """Return how long the page waits for its lists."""
    ledger: dict[str, Any] = {"ledger": day.ledger, "stale_s": 30.0, "state": None, "limit": 50}
    oldest = day.ledger.listing.latest_first()[-1]
    asked = {
        "latest conversations": lambda: list_conversations(**ledger, search="", offset=0),
        "conversations of a year ago": lambda: list_conversations(**ledger, search="", offset=8_000),
        "search for an id": lambda: list_conversations(**ledger, search=oldest[-9:], offset=0),
        "search for nobody": lambda: list_conversations(**ledger, search="nobody", offset=0),
        "jobs": lambda: list_jobs(day.ledger, state=None, conversation_id=None, limit=200),
        "status": lambda: read_status(day.ledger),
        "marks of what changed": day.ledger.listing.marks,
        "a conversation of a year ago": lambda: (day.ledger.conversations.get(oldest), day.store.read(oldest)),
    }
    return {name: _time(ask) for name, ask in asked.items()}


def _time(ask: Any) -> float:  # noqa: ANN401 - anything to call
    began_s = time.perf_counter()
    ask()
    return time.perf_counter() - began_s


def time_commands(data_dir: Path, newest: str, oldest: str) -> dict[str, tuple[float, float, float]]:
    """Return how long commands take, with Python's start: see `YearMeasurement`."""
    backup = data_dir / "backup.tar"
    asked = {
        "--help": ("--help",),
        "conversations": ("conversations",),
        "conversations --json": ("conversations", "--json"),
        "jobs": ("jobs",),
        "failed": ("failed",),
        "show (of today)": ("show", newest),
        "show (of a year ago)": ("show", oldest),
        "history (of a year ago)": ("history", oldest),
        "export (of a year ago)": ("export", oldest, "--format", "srt"),
        "people list": ("people", "list", "--owner", "wearer"),
        "backup": ("backup", str(backup)),
        "restore": ("restore", str(backup), "--overwrite", "--yes"),
    }
    found = {}
    for name, arguments in asked.items():
        runs = sorted(time_command(data_dir, *arguments) for _ in range(RUNS))
        median_s, worked_s = runs[RUNS // 2]
        found[name] = median_s, runs[-1][0], worked_s
    return found


def time_command(data_dir: Path, *arguments: str) -> tuple[float, float]:
    """Return the seconds that `omi-bridge …` takes, by the clock and of the processor."""
    program = [sys.executable, "-m", "vps_bridge", *arguments]
    began_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        program, env=os.environ | {"OMI_DATA_DIR": str(data_dir)}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    took_s, after = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took_s, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def render(outcome: YearMeasurement) -> str:
    """The tables, in Markdown."""
    total, files = sum(outcome.file_bytes.values()), outcome.file_bytes
    words = f"""\
{outcome.days} days of 16 hours of audio, {outcome.conversations:,} conversations.

- A day as it comes, with voice samples: {sum(outcome.day_bytes.values()) / 1e6:.1f} MB.
- The same day once it is packed and its voices are forgotten: {outcome.packed_day_bytes / 1e6:.2f} MB (aim: 2).
- Ledger and store, with the last {WITH_SAMPLES_DAYS} days as they come: {total / 1e6:.0f} MB
  ({files[FILE_NAME] / 1e6:.0f} and {files[STORE_FILE] / 1e6:.0f}; aim: 800).

| bytes, by table with its indexes | one day as it comes | all |
|---|---|---|
"""
    names = dict.fromkeys([*outcome.day_bytes, *outcome.year_bytes])
    rows = [
        f"| {name} | {outcome.day_bytes.get(name, 0) / 1e6:.2f} MB | {outcome.year_bytes.get(name, 0) / 1e6:.2f} MB |\n"
        for name in names
    ]
    timed = "\nPython's start is in all of these: `--help` does nothing else. Where other work loads the machine, the\n"
    timed += "processor's time says what a command itself takes. A backup and a restore read and write every byte.\n\n"
    timed += f"| command | s, median of {RUNS} (aim: 2) | longest | s of the processor |\n|---|---|---|---|\n"
    commands = [
        f"| `omi-bridge {name}` | {took_s:.1f} | {longest_s:.1f} | {worked_s:.1f} |\n"
        for name, (took_s, longest_s, worked_s) in outcome.commands_s.items()
    ]
    listed = "\n| list, as the page asks for it | ms (aim: 300) |\n|---|---|\n"
    lists = [f"| {name} | {1_000 * took_s:.0f} |\n" for name, took_s in outcome.lists_s.items()]
    return "".join([words, *rows, timed, *commands, listed, *lists])


if __name__ == "__main__":
    main()
