"""What the ledger knows of a conversation that its labels are worked out of: read in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

from vps_bridge.ledger.chunks import chunks_of
from vps_bridge.ledger.corrections import corrections_of
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.jobs import jobs_of, results_of
from vps_bridge.ledger.packing import reading_unpacked
from vps_bridge.ledger.records import ChunkRecord, CorrectionRecord, JobRecord


@dataclass(frozen=True)
class StoredEvidence:
    """The rows of a conversation as they were at one moment."""

    jobs: tuple[JobRecord, ...]
    """Oldest first."""
    chunks: tuple[ChunkRecord, ...]
    """In order of arrival."""
    results: tuple[bytes, ...]
    """As agents sent them, in order of the jobs."""
    corrections: tuple[CorrectionRecord, ...]
    """What people corrected, oldest first, without what is undone."""


class EvidenceBook:
    """The evidence of all conversations."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def of_conversation(self, conversation_id: str) -> StoredEvidence:
        """Return the evidence of a conversation; nothing of one that is unknown."""
        with reading_unpacked(self._database, conversation_id) as connection:
            corrections = corrections_of(self._database, connection, conversation_id)
            return StoredEvidence(
                jobs=tuple(jobs_of(connection, conversation_id)),
                chunks=tuple(chunks_of(connection, conversation_id)),
                results=tuple(found.payload for found in results_of(connection, conversation_id)),
                corrections=tuple(kept for kept in corrections if kept.in_force),
            )
