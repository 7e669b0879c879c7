"""The lengths of chunks and jobs as agents decoded them; they replace what was measured or estimated."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, select, update

from vps_bridge.ledger.job_events import OF_JOB
from vps_bridge.ledger.tables import ChunkRow, JobChunkRow, JobRow

REPLACED_S = 0.1  # what is measured differs less from what is decoded: padding at the end of a file
_LENGTHS = (
    select(ChunkRow.arrival, ChunkRow.chunk_id, ChunkRow.duration_s, ChunkRow.duration_estimated)
    .join(JobChunkRow, JobChunkRow.arrival == ChunkRow.arrival)
    .where(JobChunkRow.job_id == OF_JOB)
)
_NOTE_LENGTH = (
    update(ChunkRow)
    .where(ChunkRow.arrival == bindparam("of_arrival"))
    .values(duration_s=bindparam("decoded_s"), duration_estimated=False)
)
_NOTE_JOB_LENGTH = (
    update(JobRow).where(JobRow.job_id == OF_JOB).values(audio_s=bindparam("decoded_s"), audio_estimated=False)
)


def replaces(decoded_s: float, known_s: float | None, *, is_estimated: bool) -> bool:
    """Whether a decoded length takes the place of what is known."""
    return is_estimated or abs((known_s or 0.0) - decoded_s) > REPLACED_S


def note_decoded_lengths(connection: Connection, job_id: str, decoded_s: Mapping[str, float]) -> None:
    """Note how many seconds of each chunk, by its id, the agent that did a job decoded."""
    if not decoded_s:
        return
    rows = [row for row in connection.execute(_LENGTHS, {"of_job": job_id}) if decoded_s.get(row.chunk_id)]
    changed = [
        {"of_arrival": row.arrival, "decoded_s": decoded_s[row.chunk_id]}
        for row in rows
        if replaces(decoded_s[row.chunk_id], row.duration_s, is_estimated=row.duration_estimated)
    ]
    if changed:
        connection.execute(_NOTE_LENGTH, changed)
        connection.execute(
            _NOTE_JOB_LENGTH, {"of_job": job_id, "decoded_s": sum(decoded_s[row.chunk_id] for row in rows)}
        )
