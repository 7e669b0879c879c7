"""A ledger of years: filled by the database itself, in a file or on a server, and looked at how it finds things."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import JSON, Connection, Double, Integer, LargeBinary, bindparam, event, text

from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import Voice, VoiceBook
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.both_dialects import SERVER_DIALECT

MODEL = ("model", "1")
CHUNKS_EACH = 10
LITTLE = 1_000.0  # what costs a server less, in its own units, it reads whole because it is small
OPEN, FAILED = 1_000, 100  # conversations whose job waits, and whose job failed; all others are final
STEP_S = 120.0  # a conversation began so long after the one before; the open ones are the latest
OWNERS, TOLD_EACH = 1_000, 10
"""Owners of the conversations; every so-many-th of these came from OMI, as many are deleted beside."""
_OF_CHUNKS = ("conversations", "chunks", "jobs", "job_chunks", "job_events", "leases", "results", "events")
LARGE = (*_OF_CHUNKS, "person_decisions", "tombstones", "omi_conversations")
_VOICES = VoiceBook((Voice(0, (LocalSpeaker("j", "A"),), ("s1", "s2")), Voice(1, (LocalSpeaker("j", "B"),), ("s3",))))
_RESULT = bytes.fromhex("81a9666f72676f7474656ec3") + bytes(300)  # nobody's voice is kept in it any more
# Both databases take all of this. `n` is the number of a conversation, `k` that of its chunk.
_FILL = """
CREATE TEMPORARY TABLE numbers (n integer PRIMARY KEY);
WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < :size) INSERT INTO numbers SELECT n FROM up;

INSERT INTO conversations (conversation_id, last_activity_at, started_revision, completed, completed_revision, voices,
    dirty, updated_version, applied_version, updated_payload, final_at, owner, embedding_model, embedding_revision)
SELECT 'c' || n, :now - :step_s * (:size - n), 0, n <= :ended, 0, :voices, 0,
    CASE WHEN n <= :ended THEN 1 ELSE 0 END, CASE WHEN n <= :ended THEN 1 ELSE 0 END,
    CASE WHEN n <= :ended THEN :result END, CASE WHEN n <= :ended THEN :now - :step_s * (:size - n) END,
    'owner' || (n % :owners), 'model', '1'
FROM numbers;

INSERT INTO chunks (arrival, conversation_id, chunk_id, sequence, captured_at_s, encoding, duration_s, sha256, bytes,
    spool_name, accepted_at, covered)
SELECT 10 * (numbers.n - 1) + tens.n, 'c' || numbers.n, 'k' || tens.n, tens.n,
    :now - :step_s * (:size - numbers.n) + 10 * tens.n, 'opus', 10.0,
    '0000000000000000000000000000000000000000000000000000000000000000', 40000,
    CASE WHEN numbers.n > :ended THEN 's' || numbers.n || 'x' || tens.n END,
    :now - :step_s * (:size - numbers.n), 1 = 1
FROM numbers, numbers AS tens WHERE tens.n <= 10;

INSERT INTO jobs (number, job_id, conversation_id, state, audio_s, attempts, deaths, created_at, ended_at, failure_code)
SELECT n, 'j' || n, 'c' || n, CASE WHEN n > :ended THEN 'ready' WHEN n <= :failed THEN 'failed' ELSE 'done' END,
    100.0, 0, 0, :now - :step_s * (:size - n), CASE WHEN n <= :ended THEN :now - :step_s * (:size - n) END,
    CASE WHEN n <= :failed THEN 'engine.crashed' END
FROM numbers;

INSERT INTO job_chunks (job_id, position, arrival, start_s, fresh)
SELECT 'j' || numbers.n, tens.n - 1, 10 * (numbers.n - 1) + tens.n, NULL, 1 = 1
FROM numbers, numbers AS tens WHERE tens.n <= 10;

INSERT INTO leases (lease_id, job_id, agent_id, instance_id, granted_at)
SELECT 'l' || n, 'j' || n, 'mac', 'i', :now - :step_s * (:size - n) FROM numbers WHERE n <= :ended;

INSERT INTO results (job_id, lease_id, agent_id, payload, stored_at)
SELECT 'j' || n, 'l' || n, 'mac', :result, :now - :step_s * (:size - n) FROM numbers WHERE n > :failed AND n <= :ended;

INSERT INTO job_events (job_id, at, event, by)
SELECT 'j' || n, :now - :step_s * (:size - n), event, 'mac'
FROM numbers, (SELECT 'granted' AS event UNION ALL SELECT 'stored' UNION ALL SELECT 'labelled') AS kinds
WHERE n <= :ended ORDER BY n;

INSERT INTO events (conversation_id, event_id, verdict)
SELECT 'c' || numbers.n, 'e' || two.n, 'accepted' FROM numbers, numbers AS two WHERE two.n <= 2;

INSERT INTO people (owner, person_id, created_at) SELECT 'owner' || n, 'anna', :now FROM numbers WHERE n <= :owners;

INSERT INTO person_decisions (owner, person_id, at, what, conversation_id)
SELECT 'owner' || (n % :owners), 'anna', :now - :step_s * (:size - n), 'little_speech', 'c' || n FROM numbers;

INSERT INTO tombstones (conversation_id, deleted_at, finished)
SELECT 'd' || n, :now - :step_s * (:size - n), 1 = 1 FROM numbers WHERE n % :told_each = 0;

INSERT INTO omi_conversations (conversation_id, uid, started_at, ended_at, posts, body_sha256, waits, sent_version,
    sent_labels)
SELECT 'c' || n, 'owner' || (n % :owners), :now - :step_s * (:size - n), :now + 100 - :step_s * (:size - n), 1, '',
    1 = 0, 1, '{}' FROM numbers WHERE n % :told_each = 0 AND n <= :ended;

DROP TABLE numbers;
"""


def fill(
    connection: Connection, size: int, *, is_open: int = OPEN, failed: int = FAILED, analyzes: bool = True
) -> None:
    """Write a ledger of so many conversations, all of them at once; then have a server look at what it has.

    Within a transaction a server cannot do the last: it `analyzes` outside of one.
    """
    facts = {"size": size, "ended": size - min(is_open, size // 2), "failed": min(failed, size // 4), "owners": OWNERS}
    values = {**facts, "told_each": TOLD_EACH, "now": time.time(), "step_s": STEP_S, "voices": _VOICES.to_json()}
    values["result"] = _RESULT
    kinds = {"now": Double, "step_s": Double, "voices": JSON, "result": LargeBinary}
    for part in _FILL.split(";"):
        named = [name for name in values if f":{name}" in part]
        statement = text(part).bindparams(*(bindparam(name, type_=kinds.get(name, Integer)()) for name in named))
        if part.strip():
            connection.execute(statement, {name: values[name] for name in named})
    if connection.dialect.name == SERVER_DIALECT:
        for table, column, last in (("chunks", "arrival", CHUNKS_EACH * size), ("jobs", "number", size)):
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), {last})")
        for table in LARGE if analyzes else ():
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {table}")


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
    """Return the large tables that a statement reads from end to end on a server, by the plan that it makes."""
    return {node["Relation Name"] for node in _scans(ledger, "FORMAT JSON", statement, values) if _is_whole(node)}


def count_rows(ledger: Ledger, statement: str, values: Any) -> int:  # noqa: ANN401 - of any statement
    """Return how many rows of large tables a statement reads on a server; what it changes is taken back.

    The plan is that of a ledger too large for memory: reading a whole table costs a thousand times what a page does.
    """
    nodes = _scans(ledger, "ANALYZE, FORMAT JSON", statement, values, "SET LOCAL seq_page_cost = 1000")
    passed_over = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    return sum(
        round((node["Actual Rows"] + sum(node.get(name, 0) for name in passed_over)) * node["Actual Loops"])
        for node in nodes
    )


class _TakenBack(Exception):
    """Ends a transaction that is to change nothing."""


def _scans(ledger: Ledger, options: str, statement: str, values: Any, *settings: str) -> list[dict[str, Any]]:  # noqa: ANN401 - of any statement
    """Return the parts of a statement's plan that read a large table."""
    if not statement.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")) or isinstance(values, list):
        return []
    plan: Any = None
    with suppress(_TakenBack), ledger._database.writing() as connection:  # noqa: SLF001 - what is measured
        for setting in settings:
            connection.exec_driver_sql(setting)
        plan = connection.exec_driver_sql(f"EXPLAIN ({options}) {statement}", values).scalar_one()
        raise _TakenBack
    return list(_scans_in((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))


def _scans_in(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Scan" in node["Node Type"] and node.get("Relation Name") in LARGE:
        yield node
    for below in node.get("Plans", ()):
        yield from _scans_in(below)


def _is_whole(node: dict[str, Any]) -> bool:
    return bool(node["Node Type"] == "Seq Scan" and node["Total Cost"] > LITTLE)
