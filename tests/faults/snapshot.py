"""How far a run is, read from the files of the running programs."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mac_agent.inbox import MARKER
from tests.faults.plan import AGENTS
from tests.faults.programs import ChaosSystem

BUSY_S = 5.0
NO_AUDIO = (MARKER, "CACHEDIR.TAG")  # files of an inbox that are not audio


@dataclass(frozen=True)
class Snapshot:
    """Counts at one moment; two equal snapshots mean that nothing has changed."""

    chunks: int
    uncovered: int
    waiting: int
    """Jobs without a result."""
    stored: int
    """Jobs with a result that is not in the labels of their conversation yet."""
    done: int
    failed: int
    unfinal: int
    unconfirmed: int
    spool_files: int
    arriving_files: int
    outbox: int
    inbox_files: int

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left to do."""
        left = (self.uncovered, self.waiting, self.stored, self.unfinal, self.unconfirmed, self.outbox)
        return not any(left) and self.inbox_files == 0


def take_snapshot(system: ChaosSystem) -> Snapshot | None:
    """Return the counts, or None while a database cannot be read."""
    try:
        with _reading(system.bridge_root / "ledger.sqlite3") as ledger:
            states = dict(ledger.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
            chunks, uncovered = ledger.execute("SELECT count(*), coalesce(sum(NOT covered), 0) FROM chunks").fetchone()
            unfinal, unconfirmed = ledger.execute(
                "SELECT coalesce(sum(final_at IS NULL OR dirty > 0), 0),"
                " coalesce(sum(applied_version < updated_version), 0) FROM conversations"
            ).fetchone()
        outbox = sum(_count_outbox(system.agent_dir(agent_id) / "outbox.sqlite") for agent_id in AGENTS)
    except sqlite3.Error:
        return None
    return Snapshot(
        chunks=chunks,
        uncovered=uncovered,
        waiting=states.get("ready", 0) + states.get("leased", 0),
        stored=states.get("turns_stored", 0),
        done=states.get("done", 0),
        failed=states.get("failed", 0),
        unfinal=unfinal,
        unconfirmed=unconfirmed,
        spool_files=len(files_in(system.bridge_root / "spool")),
        arriving_files=len(files_in(system.bridge_root / "incoming")),
        outbox=outbox,
        inbox_files=sum(len(files_in(system.agent_dir(agent_id) / "inbox")) for agent_id in AGENTS),
    )


def files_in(directory: Path) -> list[str]:
    """Return the names of a directory's audio files."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path.name for path in directory.iterdir() if path.name not in NO_AUDIO)
    return []


def _count_outbox(path: Path) -> int:
    if not path.exists():
        return 0
    with _reading(path) as outbox:
        count: int = outbox.execute("SELECT count(*) FROM entries").fetchone()[0]
        return count


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one read: a lasting one would keep SQLite from truncating its write-ahead log."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_S)
    try:
        yield connection
    finally:
        connection.close()
