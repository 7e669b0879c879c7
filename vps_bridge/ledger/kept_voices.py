"""Which conversations still hold how people sound: voice samples, and embeddings of voices that nobody named.

A conversation that was never completed counts from when something happened to it last: its backend may have gone.
"""

from __future__ import annotations

from sqlalchemy import LargeBinary, bindparam, func, not_, select

from vps_bridge.ledger.both_dialects import holds
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.tables import ConversationRow, JobRow, PackedRow, ResultRow

_SETTLED_AT = func.coalesce(ConversationRow.final_at, ConversationRow.last_activity_at)
_IS_DUE = (bindparam("after") < _SETTLED_AT) & (bindparam("until") >= _SETTLED_AT)
_RESULTS_OF_DUE = (
    select(ConversationRow.conversation_id, _SETTLED_AT.label("settled_at"))
    .join(JobRow, JobRow.conversation_id == ConversationRow.conversation_id)
    .join(ResultRow, ResultRow.job_id == JobRow.job_id)
    .where(_IS_DUE)
    .distinct()
)
_WITH_SAMPLES = _RESULTS_OF_DUE.where(holds(ResultRow.payload, b"voice_samples"))
_WITH_VOICES = _RESULTS_OF_DUE.where(not_(holds(ResultRow.payload, bindparam("marker", type_=LargeBinary))))
_PACKED_WITH_VOICES = (
    select(ConversationRow.conversation_id, _SETTLED_AT.label("settled_at"))
    .join(PackedRow, PackedRow.conversation_id == ConversationRow.conversation_id)
    .where(_IS_DUE, PackedRow.holds_voices)
)


class KeptVoices:
    """Conversations by what they hold of voices."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def with_samples(self, *, after: float, until: float) -> list[str]:
        """Return the conversations that became final between these Unix times and whose results hold voice samples."""
        with self._database.reading() as connection:
            return [name for name, _ in connection.execute(_WITH_SAMPLES, {"after": after, "until": until})]

    def with_voices(self, marker: bytes, *, after: float, until: float, limit: int) -> list[tuple[str, float]]:
        """Return conversations, and when they became final, that have results without this marker; oldest first."""
        wanted = {"after": after, "until": until}
        with self._database.reading() as connection:
            found = [*connection.execute(_WITH_VOICES, {**wanted, "marker": marker})]
            found += connection.execute(_PACKED_WITH_VOICES, wanted)
        return sorted(((name, moment) for name, moment in found), key=lambda one: (one[1], one[0]))[:limit]
