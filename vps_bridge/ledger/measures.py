"""What the ledger tells of throughput and latency: numbers alone, no ids."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, func, select

from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.job_states import JobEvent, JobState
from vps_bridge.ledger.tables import ChunkRow, JobChunkRow, JobEventRow, JobRow

MAX_EVENTS = 5_000
"""So many are read at once: whoever asks again goes on where this ends."""

_IS_NEW = (JobEventRow.number > bindparam("after")) & (JobEventRow.number <= bindparam("until"))
# From the end: the times have no index, and what is looked for was not long ago.
_LAST_BEFORE = (
    select(JobEventRow.number).where(JobEventRow.at < bindparam("moment")).order_by(JobEventRow.number.desc()).limit(1)
)
_FIRST_AFTER = select(func.min(JobEventRow.at)).where(JobEventRow.number > bindparam("event"))
_LAST = select(func.max(JobEventRow.number))
_EVENTS = select(JobEventRow.event, func.count().label("times")).where(_IS_NEW).group_by(JobEventRow.event)
_LABELLED = (
    select(JobEventRow.at - ChunkRow.accepted_at, ChunkRow.duration_s)
    .join(JobChunkRow, JobChunkRow.job_id == JobEventRow.job_id)
    .join(ChunkRow, ChunkRow.arrival == JobChunkRow.arrival)
    .where(_IS_NEW, JobEventRow.event == JobEvent.LABELLED, JobChunkRow.fresh)
)
_FAILED = (
    select(JobRow.failure_code, func.count().label("jobs"))
    .where(JobRow.state == JobState.FAILED)
    .group_by(JobRow.failure_code)
)


@dataclass(frozen=True)
class LabelledChunk:
    """A chunk whose conversation was labelled with it."""

    latency_s: float
    """From its acceptance to the update that has it."""
    audio_s: float


@dataclass(frozen=True)
class Progress:
    """What happened to jobs after one event and up to another."""

    last_event: int
    events: dict[JobEvent, int]
    labelled: tuple[LabelledChunk, ...]


@dataclass(frozen=True)
class Recently:
    """What was labelled since a Unix time."""

    since: float
    labelled: tuple[LabelledChunk, ...]


class Measures:
    """Counts over all jobs."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def last_event_before(self, moment: float) -> int:
        """Return the number of the latest event of any job before a Unix time; 0 where there is none."""
        with self._database.reading() as connection:
            return connection.scalar(_LAST_BEFORE, {"moment": moment}) or 0

    def progress_since(self, event: int) -> Progress:
        """Return what happened after an event, `MAX_EVENTS` of them at most."""
        with self._database.reading() as connection:
            last = min(connection.scalar(_LAST) or 0, event + MAX_EVENTS)
            span = {"after": event, "until": last}
            rows = connection.execute(_LABELLED, span)
            return Progress(
                last_event=max(last, event),
                events={row.event: row.times for row in connection.execute(_EVENTS, span)},
                labelled=tuple(LabelledChunk(max(0.0, latency_s), audio_s or 0.0) for latency_s, audio_s in rows),
            )

    def labelled_lately(self, since: float) -> Recently:
        """Return what was labelled since a Unix time; from later on where more than `MAX_EVENTS` happened to jobs."""
        with self._database.reading() as connection:
            last, first = connection.scalar(_LAST) or 0, connection.scalar(_LAST_BEFORE, {"moment": since}) or 0
            if last - first > MAX_EVENTS:
                first = last - MAX_EVENTS
                since = connection.scalar(_FIRST_AFTER, {"event": first}) or since
            rows = connection.execute(_LABELLED, {"after": first, "until": last})
            return Recently(since, tuple(LabelledChunk(max(0.0, took_s), audio_s or 0.0) for took_s, audio_s in rows))

    def failed_by_code(self) -> dict[str, int]:
        """Return how many jobs stand failed, by the code of their last failure."""
        with self._database.reading() as connection:
            return {row.failure_code or "": row.jobs for row in connection.execute(_FAILED)}
