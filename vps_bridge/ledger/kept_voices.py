"""Which conversations still hold how people sound: voice samples, and embeddings of voices that nobody named.

A conversation that was never completed counts from when something happened to it last: its backend may have gone.
They are looked at in this order, each once: how far that is, the ledger keeps, or every start would read all results.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Select, bindparam, func, not_, or_, select

from vps_bridge.ledger.both_dialects import holds, insert
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.tables import ConversationRow, JobRow, MetaRow, PackedRow, ResultRow

AT_ONCE = 500
"""Conversations that are looked at in one go."""
_SAMPLES, _VOICES = "samples_settled_until", "voices_forgotten_until"
_NAME = ConversationRow.conversation_id
_SETTLED_AT = func.coalesce(ConversationRow.final_at, ConversationRow.last_activity_at)


def _select_next(is_held: ColumnElement[bool]) -> Select[str, float, bool]:
    """Return the statement for the conversations behind a place, and whether each holds what is looked for."""
    is_behind = or_(bindparam("after") < _SETTLED_AT, bindparam("after_name") < _NAME)
    return (
        select(_NAME, _SETTLED_AT.label("settled_at"), is_held.label("is_held"))
        .where(bindparam("after") <= _SETTLED_AT, bindparam("until") >= _SETTLED_AT, is_behind)
        .order_by(_SETTLED_AT, _NAME)
        .limit(AT_ONCE)
    )


def _has_result(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition that a conversation has such a result; for an EXISTS a server might read all results."""
    of_it = select(ResultRow.job_id).join(JobRow, JobRow.job_id == ResultRow.job_id)
    return of_it.where(JobRow.conversation_id == _NAME, condition).limit(1).scalar_subquery().is_not(None)


_IS_FORGOTTEN = holds(ResultRow.payload, bindparam("marker", type_=LargeBinary))
_PACKED = select(PackedRow.conversation_id).where(PackedRow.conversation_id == _NAME, PackedRow.holds_voices)
_WITH_SAMPLES = _select_next(_has_result(holds(ResultRow.payload, b"voice_samples")))
_WITH_VOICES = _select_next(or_(_has_result(not_(_IS_FORGOTTEN)), _PACKED.scalar_subquery().is_not(None)))
_KEPT = select(MetaRow.value).where(MetaRow.key == bindparam("of_key"))
_NEW = insert(MetaRow)
_KEEP = _NEW.on_conflict_do_update(index_elements=[MetaRow.key], set_={"value": _NEW.excluded.value})


Place = tuple[float, str]
"""Of a conversation: when it was settled (Unix time), and its id."""


@dataclass(frozen=True)
class Found:
    """Conversations that hold what was looked for."""

    names: tuple[str, ...]
    place: Place | None
    """The last conversation that was looked at; None where that is the same as before."""
    is_more: bool
    """Whether there may be more that are due."""


class KeptVoices:
    """Conversations by what they hold of voices."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def with_samples(self, until: float) -> Found:
        """Return the next conversations that became final before this Unix time and whose results hold samples."""
        return self._find(_SAMPLES, _WITH_SAMPLES, until, {}, AT_ONCE)

    def with_voices(self, marker: bytes, until: float, limit: int) -> Found:
        """Return the next conversations that became final before this Unix time and have results without a marker."""
        return self._find(_VOICES, _WITH_VOICES, until, {"marker": marker}, limit)

    def note_settled(self, found: Found) -> None:
        """Look no more at the conversations up to here for samples."""
        self._keep(_SAMPLES, found.place)

    def note_forgotten(self, found: Found) -> None:
        """Look no more at the conversations up to here for voices."""
        self._keep(_VOICES, found.place)

    def _find(
        self, key: str, query: Select[str, float, bool], until: float, values: dict[str, Any], limit: int
    ) -> Found:
        with self._database.reading() as connection:
            kept = connection.scalar(_KEPT, {"of_key": key})
            place: Place = tuple(json.loads(kept)) if kept else (0.0, "")
            if place[0] > until:  # the clock was ahead, or they are kept longer now
                place = until, ""
            values |= {"after": place[0], "after_name": place[1], "until": until}
            rows = connection.execute(query, values).all()
        held = [row for row in rows if row.is_held]
        if len(held) > limit:
            rows, held = rows[: rows.index(held[limit])], held[:limit]
            is_more = True
        else:
            is_more = len(rows) == AT_ONCE
        if rows:
            place = rows[-1].settled_at, rows[-1].conversation_id
        is_same = kept is not None and json.dumps(place) == kept
        return Found(tuple(row.conversation_id for row in held), None if is_same else place, is_more)

    def _keep(self, key: str, place: Place | None) -> None:
        if place is not None:
            with self._database.writing() as connection:
                connection.execute(_KEEP, {"key": key, "value": json.dumps(place)})
