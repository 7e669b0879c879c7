"""What a payload costs a ledger in a file and one on PostgreSQL, and how PostgreSQL's queries grow with the years.

    python -m benchmarks.bench_ledgers                     300 payloads, then 10,000 and 100,000 conversations
    python -m benchmarks.bench_ledgers --payloads 200 --sizes
    python -m benchmarks.bench_ledgers --sizes 10000 100000 1000000 --json

A payload is everything that the bridge asks of its ledger for one chunk: it is accepted with its events, becomes a job,
is leased, its result is stored, its conversation labelled, told and applied. There is a `sync` where a receipt would be
sent. Processor time is that of this process, and of PostgreSQL's own beside it. The server runs with its defaults, and
syncs. Then its tables are filled with conversations of ten chunks, and what the bridge and its page ask is timed and
its plan looked at: no large table may be read from end to end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import Progress

from benchmarks.asked_of_ledger import list_questions
from benchmarks.grown_ledger import CHUNKS_EACH, MODEL, fill, find_scans, noted
from broker.logs import silence_logs
from schemas.conversation import ConversationEvent, EventType, Verdict
from tests.postgres_server import RunningPostgres, run_postgres
from tests.vps_bridge.ledger_server import server_of
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.records import NewChunk, SpeakerHints
from vps_bridge.ledger.server_connection import ServerConnection
from vps_bridge.rules.assemble import JobPlan, PlannedChunk

REPORT = Path(__file__).with_name("ledgers.md")
LIMIT_MS = 50.0
PAYLOADS, WARM, TIMES = 300, 20, 7
TURNS = b"\x00" * 4_000  # as long as the turns of two minutes


@dataclass(frozen=True)
class Cost:
    """What a payload costs one ledger."""

    kind: str
    payloads: int
    cpu_ms: float
    server_cpu_ms: float
    p50_ms: float
    p99_ms: float
    statements: float
    """Messages to the server that were waited for; calls of SQLite."""


@dataclass(frozen=True)
class Asked:
    """One thing that was asked of a grown ledger, several times."""

    what: str
    median_ms: float
    scans: tuple[str, ...]
    """Large tables that one of its statements reads from end to end."""
    is_good: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--payloads", type=int, default=PAYLOADS)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000], help="conversations")
    parser.add_argument("--json", action="store_true", help="numbers for a program instead of tables")
    options = parser.parse_args()
    silence_logs()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        with run_postgres() as postgres:
            costs = [measure(None, options.payloads, progress), measure(postgres, options.payloads, progress)]
        grown: dict[int, list[Asked]] = {}
        for size in options.sizes:
            with run_postgres("-c", "fsync=off", "-c", "max_wal_size=8GB", "-c", "shared_buffers=1GB") as postgres:
                grown[size] = grow(postgres, size, progress)
    if options.json:
        print(
            json.dumps(
                {
                    "costs": [asdict(cost) for cost in costs],
                    "grown": {n: [asdict(a) for a in found] for n, found in grown.items()},
                }
            )
        )
        return
    report = render(costs, grown)
    print(report)
    if options.payloads >= PAYLOADS and len(grown) > 1:
        head = f"# Ledgers\n\nWritten by `make bench-ledgers` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; do not edit."
        machine = f"{platform.platform(terse=True)}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
        REPORT.write_text(f"{head}\n{machine}; Python {platform.python_version()}.\n\n{report}", encoding="utf-8")
    slow = [f"{asked.what} at {size:,}" for size, found in grown.items() for asked in found if not asked.is_good]
    if slow:
        sys.exit(f"over {LIMIT_MS:g} ms, or a table read from end to end: {', '.join(slow)}")


# ------------------------------------------------------------------------------------------------ one payload


def deliver(ledger: Ledger, number: int) -> None:
    """All that the bridge asks for one payload, in the order in which it does."""
    name, chunk_id = f"c{number}", f"k{number}"
    started = ConversationEvent(event_id=f"s{number}", type=EventType.STARTED)
    completed = ConversationEvent(event_id=f"e{number}", type=EventType.COMPLETED, chunks=1)
    for event in (started, completed):
        ledger.events.find_answer(event, name)
        ledger.events.note(event, name, Verdict.ACCEPTED)
        ledger.sync()
    ledger.conversations.is_deleted(name)
    ledger.chunks.find(name, chunk_id)
    new = NewChunk(name, chunk_id, "0" * 64, 100_000, f"s{number}", "wav", duration_s=60.0)
    ledger.chunks.accept(new, SpeakerHints(), final=False)
    ledger.conversations.get(name)
    ledger.chunks.of_conversation(name)
    (job_id,) = ledger.jobs.add(name, (JobPlan((PlannedChunk(chunk_id, None),), (chunk_id,)),))
    ledger.agents.allowed()
    ledger.leases.current()
    ledger.jobs.ready({MODEL}, leased=set(), resting=set(), limit=1)
    lease = ledger.leases.grant(job_id, "mac", "i", MODEL)
    assert lease is not None
    ledger.jobs.chunks(job_id)
    ledger.sync()  # the receipt and the offer leave
    for _ in range(2):  # parts
        ledger.leases.find(lease.lease_id)
        ledger.agents.allowed()
        ledger.jobs.find_chunk(job_id, chunk_id)
    ledger.leases.find(lease.lease_id)
    ledger.jobs.chunks(job_id)
    ledger.jobs.store_result(lease, TURNS)
    ledger.sync()
    label(ledger, name, job_id)
    ledger.sync()
    applied = ConversationEvent(event_id=f"a{number}", type=EventType.APPLIED, updated_version=1)
    ledger.events.find_answer(applied, name)
    ledger.events.note(applied, name, Verdict.ACCEPTED)
    ledger.sync()


def label(ledger: Ledger, name: str, job_id: str) -> None:
    """What working out its labels reads and writes here."""
    ledger.conversations.find_completion(name)
    ledger.take_labels(name)
    record = ledger.conversations.take_up(name)
    assert record is not None
    ledger.jobs.results(name)
    ledger.chunks.of_conversation(name)
    ledger.jobs.of_conversation(name)
    ledger.corrections.of_conversation(name)
    ledger.people.known_to("")
    made = AssignedUpdate([], "key", TURNS, final=True, done_jobs=(job_id,), seen=record.dirty)
    ledger.conversations.note_update(name, made)
    ledger.give_labels(name)
    ledger.conversations.unapplied()


def measure(postgres: RunningPostgres | None, payloads: int, progress: Progress) -> Cost:
    """Deliver payloads one after the other, and measure each."""
    kind = "SQLite" if postgres is None else "PostgreSQL"
    task = progress.add_task(kind, total=payloads)
    server = None if postgres is None else server_of(postgres, "postgres")
    with tempfile.TemporaryDirectory() as root, counted() as count:
        ledger = Ledger(Path(root), exclusive=True, server=server)
        ledger.agents.set_allowed("mac", allowed=True)
        for number in range(WARM):
            deliver(ledger, number)
        count.watch(ledger)
        took_ms, began_s, began_server_s = [], time.process_time(), server_cpu_s(postgres)
        for number in range(WARM, WARM + payloads):
            at_s = time.perf_counter()
            deliver(ledger, number)
            took_ms.append(1_000 * (time.perf_counter() - at_s))
            progress.advance(task)
        cpu_s, server_s = time.process_time() - began_s, server_cpu_s(postgres) - began_server_s
        ledger.close()
    cuts = statistics.quantiles(took_ms, n=100)
    each = 1_000 / payloads
    return Cost(kind, payloads, cpu_s * each, server_s * each, cuts[49], cuts[98], count.statements / payloads)


def server_cpu_s(postgres: RunningPostgres | None) -> float:
    """Processor time of all processes of the server that run now."""
    if postgres is None or postgres.process is None:
        return 0.0
    parent = psutil.Process(postgres.process.pid)
    total = 0.0
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            exact = Path(f"/proc/{process.pid}/schedstat")  # psutil counts in steps of 10 ms
            total += int(exact.read_text().split()[0]) / 1e9 if exact.exists() else sum(process.cpu_times()[:2])
    return total


class Counter:
    """Counts what a ledger asks of its database."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.statements = 0

    def add(self, *_: object) -> None:
        """Count one."""
        self.statements += 1

    def watch(self, ledger: Ledger) -> None:
        """Count what this one asks from now on."""
        self.statements = 0
        if ledger.is_on_server:
            from sqlalchemy import event  # noqa: PLC0415

            with ledger._database.reading() as connection:  # noqa: SLF001 - what is measured
                event.listen(connection.engine, "before_cursor_execute", self.add)
            return
        with ledger._database.reading() as connection:  # noqa: SLF001 - what is measured
            driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_trace_callback(self.add)


@contextlib.contextmanager
def counted() -> Iterator[Counter]:
    """Count the messages by which transactions are begun and ended too."""
    counter, exchange = Counter(), ServerConnection.exchange

    def counting(self: ServerConnection, command: bytes) -> None:
        counter.add()
        exchange(self, command)

    ServerConnection.exchange = counting  # type: ignore[method-assign] # for as long as this measures
    try:
        yield counter
    finally:
        ServerConnection.exchange = exchange  # type: ignore[method-assign]


# ----------------------------------------------------------------------------------------------------- growth


def grow(postgres: RunningPostgres, size: int, progress: Progress) -> list[Asked]:
    """Fill a ledger with so many conversations, and ask it what the bridge and the page ask."""
    task = progress.add_task(f"{size:,} conversations", total=None)
    with tempfile.TemporaryDirectory() as root:
        ledger = Ledger(Path(root), exclusive=True, server=server_of(postgres, "postgres"))
        ledger.agents.set_allowed("mac", allowed=True)
        with postgres.superuser() as connection:
            connection.exec_driver_sql("SET search_path TO omi_ledger")
            fill(connection, size)
        try:
            return [ask(ledger, what, one, postgres) for what, one in list_questions(ledger).items()]
        finally:
            ledger.close()
            progress.remove_task(task)


def ask(ledger: Ledger, what: str, work: Callable[[], object], postgres: RunningPostgres) -> Asked:
    """Ask one thing several times, and look how the server finds it."""
    with noted(ledger) as statements:
        work()
    took_ms = []
    for _ in range(TIMES):
        began_s = time.process_time() + server_cpu_s(postgres)
        work()
        took_ms.append(1_000 * (time.process_time() + server_cpu_s(postgres) - began_s))
    scans = tuple(sorted({table for one in statements for table in find_scans(ledger, *one)}))
    median_ms = statistics.median(took_ms)
    return Asked(what, median_ms, scans, median_ms <= LIMIT_MS and not scans)


def render(costs: list[Cost], grown: dict[int, list[Asked]]) -> str:
    """Return both as tables."""
    lines = [
        f"## What a payload costs ({costs[0].payloads:,} one after the other)",
        "",
        "| ledger | processor, bridge | processor, server | p50 | p99 | statements |",
        "|---|---|---|---|---|---|",
    ]
    for cost in costs:
        times = " | ".join(f"{ms:.1f} ms" for ms in (cost.cpu_ms, cost.server_cpu_ms, cost.p50_ms, cost.p99_ms))
        lines.append(f"| {cost.kind} | {times} | {cost.statements:.0f} |")
    if grown:
        heads = " | ".join(f"{size:,}" for size in grown)
        title = f"## Conversations in PostgreSQL, {CHUNKS_EACH} chunks each"
        lines += ["", f"{title}: processor time of bridge and server together", ""]
        lines += [f"| what | {heads} |", "|---" * (len(grown) + 1) + "|"]
        for place, asked in enumerate(next(iter(grown.values()))):
            cells = " | ".join(_cell(found[place]) for found in grown.values())
            lines.append(f"| {asked.what} | {cells} |")
        lines += [
            "",
            f"Marked with ! is what takes longer than {LIMIT_MS:g} ms or reads a large table from end to end.",
        ]
    return "\n".join(lines) + "\n"


def _cell(asked: Asked) -> str:
    return f"{asked.median_ms:.1f} ms{'' if asked.is_good else ' ! ' + ', '.join(asked.scans)}"


if __name__ == "__main__":
    main()
