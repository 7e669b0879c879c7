"""A ledger of years on a server: filled by the server itself, and asked what a bridge and its page ask."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, event

from schemas.conversation import ConversationEvent, EventType, Verdict
from vps_bridge.http.reading import list_conversations, list_jobs, read_status
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import JobState

MODEL = ("model", "1")
CHUNKS_EACH = 10
OPEN, FAILED = 1_000, 100  # conversations whose job waits, and whose job failed; all others are final
TIMES = 7
LARGE = ("conversations", "chunks", "jobs", "job_chunks", "job_events", "leases", "results", "events")
# Times go back from now, a conversation every two minutes; the open ones are the latest.
_FILL = """
INSERT INTO conversations (conversation_id, last_activity_at, started_revision, completed, completed_revision, voices,
    dirty, updated_version, applied_version, updated_payload, final_at, owner, embedding_model, embedding_revision)
SELECT 'c' || n, {now} - 120.0 * ({size} - n), 0, NOT is_open, 0, '[]', 0, CASE WHEN is_open THEN 0 ELSE 1
    END, CASE WHEN is_open THEN 0 ELSE 1 END, CASE WHEN is_open THEN NULL ELSE '\\x7b7d'::bytea END,
    CASE WHEN is_open THEN NULL ELSE {now} - 120.0 * ({size} - n) END, 'owner' || (n % 1000), 'model', '1'
FROM (SELECT n, n > {size} - {open} AS is_open FROM generate_series(1, {size}) AS n) AS made;

INSERT INTO chunks (arrival, conversation_id, chunk_id, sequence, captured_at_s, encoding, duration_s, sha256, bytes,
    spool_name, accepted_at, covered)
SELECT 10 * (n - 1) + k, 'c' || n, 'k' || k, k, {now} - 120.0 * ({size} - n) + 10 * k, 'opus', 10.0, repeat('0', 64),
    40000, CASE WHEN n > {size} - {open} THEN 's' || n || '-' || k END, {now} - 120.0 * ({size} - n) + 10 * k, true
FROM generate_series(1, {size}) AS n, generate_series(1, 10) AS k;

INSERT INTO jobs (number, job_id, conversation_id, state, audio_s, attempts, deaths, created_at, ended_at, failure_code)
SELECT n, 'j' || n, 'c' || n,
    CASE WHEN n > {size} - {open} THEN 'ready' WHEN n <= {failed} THEN 'failed' ELSE 'done' END,
    100.0, 0, 0, {now} - 120.0 * ({size} - n), CASE WHEN n > {size} - {open} THEN NULL ELSE {now} - 120.0 * ({size} - n)
    END, CASE WHEN n <= {failed} THEN 'engine.crashed' END
FROM generate_series(1, {size}) AS n;

INSERT INTO job_chunks (job_id, position, arrival, start_s, fresh)
SELECT 'j' || n, k - 1, 10 * (n - 1) + k, NULL, true FROM generate_series(1, {size}) AS n, generate_series(1, 10) AS k;

INSERT INTO leases (lease_id, job_id, agent_id, instance_id, granted_at)
SELECT 'l' || n, 'j' || n, 'mac', 'i', {now} - 120.0 * ({size} - n) FROM generate_series(1, {size} - {open}) AS n;

INSERT INTO results (job_id, lease_id, agent_id, payload, stored_at)
SELECT 'j' || n, 'l' || n, 'mac', '\\x81a7666f72676f7474656e'::bytea, {now} - 120.0 * ({size} - n)
FROM generate_series({failed} + 1, {size} - {open}) AS n;

INSERT INTO job_events (job_id, at, event, by)
SELECT 'j' || n, {now} - 120.0 * ({size} - n), event, 'mac'
FROM generate_series(1, {size} - {open}) AS n, unnest(ARRAY['granted', 'stored', 'labelled']) AS event;

INSERT INTO events (conversation_id, event_id, verdict)
SELECT 'c' || n, 'e' || k, 'accepted' FROM generate_series(1, {size}) AS n, generate_series(1, 2) AS k;

SELECT setval(pg_get_serial_sequence('chunks', 'arrival'), 10 * {size});
SELECT setval(pg_get_serial_sequence('jobs', 'number'), {size});
"""


@dataclass(frozen=True)
class Asked:
    """One thing that was asked, several times."""

    what: str
    median_ms: float
    scans: tuple[str, ...]
    """Large tables that one of its statements reads from end to end."""
    is_good: bool


def fill(connection: Connection, size: int) -> None:
    """Write a ledger of so many conversations, all of them at once; then have the server look at what it has."""
    connection.exec_driver_sql("SET search_path TO omi_ledger")
    now = f"{time.time():.1f}"
    for statement in _FILL.format(now=now, size=size, open=min(OPEN, size // 2), failed=min(FAILED, size // 4)).split(
        ";"
    ):
        if statement.strip():
            connection.exec_driver_sql(statement.replace("%", "%%"))
    for table in LARGE:
        connection.exec_driver_sql(f"VACUUM ANALYZE {table}")


def ask_all(ledger: Ledger, *, limit_ms: float, processor_s: Callable[[], float]) -> list[Asked]:
    """Ask everything that is asked often, or by somebody who waits; `processor_s` tells what all took so far."""
    numbers = iter(range(10**6))

    def claim() -> None:
        ((job, *_),) = ledger.jobs.ready({MODEL}, leased=set(), resting=set(), limit=1)
        assert ledger.leases.grant(job.job_id, "mac", f"i{next(numbers)}", MODEL)

    def tell() -> None:
        event = ConversationEvent(event_id=f"new{next(numbers)}", type=EventType.STARTED)
        ledger.events.find_answer(event, "c500")
        ledger.events.note(event, "c500", Verdict.ACCEPTED)

    def page(**fields: Any) -> Callable[[], object]:  # noqa: ANN401 - of the list
        wanted: dict[str, Any] = {"search": "", "state": None, "offset": 0, "limit": 50, **fields}
        return lambda: list_conversations(ledger, stale_s=30.0, **wanted)

    work: dict[str, Callable[[], object]] = {
        "claiming a job": claim,
        "leases that run": ledger.leases.current,
        "an event": tell,
        "chunks in no job": ledger.chunks.uncovered_conversations,
        "conversations to label": ledger.conversations.dirty,
        "conversations that may end": ledger.conversations.awaiting_final,
        "updates not confirmed": ledger.conversations.unapplied,
        "deletions not finished": ledger.conversations.unfinished_deletions,
        "the counts of a heartbeat": ledger.jobs.counts,
        "audio that is due": lambda: ledger.chunks.expired(final_before=1.0, failed_before=1.0, accepted_before=1.0),
        "what can be packed": lambda: ledger.packs.idle(time.time() - 10**6, 100),
        "voices that are due": lambda: ledger.kept_voices.with_samples(after=time.time() - 3_600, until=time.time()),
        "the page: conversations": page(),
        "the page: 20 screens on": page(offset=1_000),
        "the page: jobs": lambda: list_jobs(ledger, state=None, conversation_id=None, limit=100),
        "the page: jobs that wait": lambda: list_jobs(ledger, state=JobState.READY, conversation_id=None, limit=100),
        "the page: status and failures": lambda: read_status(ledger),
        "the page: what changed": ledger.listing.marks,
        "a conversation's chunks": lambda: ledger.chunks.of_conversation("c700"),
    }
    return [ask(ledger, what, one, limit_ms, processor_s) for what, one in work.items()]


def ask(
    ledger: Ledger, what: str, work: Callable[[], object], limit_ms: float, processor_s: Callable[[], float]
) -> Asked:
    """Ask one thing several times, and look how the server finds it."""
    with noted(ledger) as statements:
        work()
    took_ms = []
    for _ in range(TIMES):
        began_s = processor_s()
        work()
        took_ms.append(1_000 * (processor_s() - began_s))
    scans = tuple(sorted({table for one in statements for table in find_scans(ledger, *one)}))
    median_ms = statistics.median(took_ms)
    return Asked(what, median_ms, scans, median_ms <= limit_ms and not scans)


@contextmanager
def noted(ledger: Ledger) -> Iterator[list[tuple[str, Any]]]:
    """Note the statements that are run meanwhile, with their values."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        statements.append((statement, values))

    with ledger._database.reading() as connection:  # noqa: SLF001 - what is measured
        engine = connection.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def find_scans(ledger: Ledger, statement: str, values: Any) -> set[str]:  # noqa: ANN401 - of any statement
    """Return the large tables that a statement reads from end to end, by the plan that the server makes."""
    if not statement.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")) or isinstance(values, list):
        return set()
    with ledger._database.reading() as connection:  # noqa: SLF001 - what is measured
        found = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
    plan = json.loads(found) if isinstance(found, str) else found
    return set(_scans_in(plan[0]["Plan"]))


def _scans_in(node: dict[str, Any]) -> Iterator[str]:
    if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE:
        yield node["Relation Name"]
    for below in node.get("Plans", ()):
        yield from _scans_in(below)
