"""Packing: the rows of a conversation that nothing happens to any more become one value, a twentieth as large.

Whoever asks for one of its rows gets it back: every method of the books that reads or writes the rows of one
conversation unpacks them first, in the same transaction. What happened to its jobs is not kept.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgpack
from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.job_events import is_in
from vps_bridge.ledger.job_states import UNFINISHED, JobState
from vps_bridge.ledger.tables import (
    Base,
    ChunkRow,
    ConversationRow,
    EventRow,
    JobChunkRow,
    JobRow,
    LeaseRow,
    PackedRow,
    ResultRow,
    WebhookRow,
)
from vps_bridge.packed_rows import PackedRowsDamaged, Rows, pack_rows, unpack_rows

_CONVERSATION: BindParameter[str] = bindparam("of_conversation")
_JOBS_OF_IT = select(JobRow.job_id).where(JobRow.conversation_id == _CONVERSATION)
# In the order in which they are put back: rows that others belong to come first.
_TABLES = tuple(
    Base.metadata.tables[row.__tablename__] for row in (ChunkRow, JobRow, JobChunkRow, LeaseRow, EventRow, ResultRow)
)
ASKED_AT_ONCE = 1_000
_FACTS = "facts"
"""The table of one row in the packed value: the large columns of the conversation itself."""
_LARGE_COLUMNS = ("voices", "audio_places", "updated_payload")

# Statements are made once: making one costs several times what running it does.
_IS_PACKED = "SELECT 1 FROM packed_conversations WHERE conversation_id = ?"
_PACKED = select(PackedRow.packed).where(PackedRow.conversation_id == _CONVERSATION)
_THIS = update(ConversationRow).where(ConversationRow.conversation_id == _CONVERSATION)
_SHRINK = _THIS.values(
    voices=bindparam("brief_voices", type_=ConversationRow.voices.type),
    audio_places=None,
    updated_payload=bindparam("payload"),
    packed_at=bindparam("now"),
)
_PACKED_AMONG = select(PackedRow.conversation_id).where(
    PackedRow.conversation_id.in_(bindparam("names", expanding=True))
)
_DROP = delete(PackedRow).where(PackedRow.conversation_id == _CONVERSATION)


def _is_of_it(table: Table) -> Any:  # noqa: ANN401 - a condition
    if "conversation_id" in table.c:
        return table.c.conversation_id == _CONVERSATION
    return table.c.job_id.in_(_JOBS_OF_IT)


_ROWS = {table.name: select(table).where(_is_of_it(table)).order_by(*table.primary_key) for table in _TABLES}
_LARGE = select(*(getattr(ConversationRow, name) for name in _LARGE_COLUMNS)).where(
    ConversationRow.conversation_id == _CONVERSATION
)


_FINAL_AT = func.coalesce(ConversationRow.final_at, literal_column("0"))  # spelled so that an index serves


def _select_idle() -> Select[Any]:
    """Return the statement that finds conversations to pack: all is done, told and quiet, and no audio is kept.

    The newest chunk and job stay rows: SQLite gives the highest number plus one, and a number is not to come twice.
    """
    conversation = ConversationRow.conversation_id
    chunk, job = ChunkRow.conversation_id == conversation, JobRow.conversation_id == conversation
    at_work = is_in(*UNFINISHED, JobState.TURNS_STORED)
    newest = [
        func.coalesce(select(func.max(number)).where(belongs).scalar_subquery(), -1)
        != func.coalesce(select(func.max(number)).scalar_subquery(), -2)
        for number, belongs in ((ChunkRow.arrival, chunk), (JobRow.number, job))
    ]
    return select(conversation).where(
        ConversationRow.packed_at.is_(None),
        ConversationRow.last_activity_at <= bindparam("quiet_since"),
        bindparam("quiet_since") >= _FINAL_AT,
        ConversationRow.dirty == literal_column("0"),
        ConversationRow.set_aside.is_(None),
        ConversationRow.enrols.is_(None),
        ~ConversationRow.throwaway,
        # One by one: a server might read all chunks and jobs to find that the first hundred have none like that.
        *(
            select(number).where(*conditions).limit(1).scalar_subquery().is_(None)
            for number, *conditions in (
                (ChunkRow.arrival, chunk, ChunkRow.spool_name.is_not(None) | ~ChunkRow.covered),
                (JobRow.number, job, at_work),
            )
        ),
        *newest,
    )


_IDLE = _select_idle().order_by(_FINAL_AT).limit(bindparam("at_most"))
_IS_IDLE = _select_idle().where(ConversationRow.conversation_id == _CONVERSATION)
# Its update is still to be sent: it stays where it is.
_IS_TO_SEND = select(ConversationRow.conversation_id).where(
    ConversationRow.conversation_id == _CONVERSATION,
    (ConversationRow.applied_version < ConversationRow.updated_version)
    | select(WebhookRow.number).where(WebhookRow.conversation_id == ConversationRow.conversation_id).exists(),
)


@dataclass(frozen=True)
class Brief:
    """What is still told of a conversation while it is packed, beside the columns that are small anyway."""

    voices: Any
    """Its voices, without what they are made of."""
    people: Sequence[str]
    """Whom its latest update names."""
    holds_voices: bool
    """Whether how people sound is still to be forgotten."""


class PackBook:
    """Packed conversations."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def idle(self, quiet_since: float, limit: int) -> list[str]:
        """Return conversations that nothing happened to since a Unix time and that can be packed, quietest first."""
        with self._database.reading() as connection:
            return list(connection.scalars(_IDLE, {"quiet_since": quiet_since, "at_most": limit}))

    def pack(self, conversation_id: str, brief: Brief, quiet_since: float) -> bool:
        """Pack a conversation; False where it is not idle (any more).

        The rows go only once what they were packed into was read back and is the same.
        """
        this = {"of_conversation": conversation_id}
        with self._database.writing(conversation_id) as connection:
            if connection.execute(_IS_IDLE, {**this, "quiet_since": quiet_since}).first() is None:
                return False
            is_to_send = connection.execute(_IS_TO_SEND, this).first() is not None
            rows = _read_rows(connection, conversation_id, with_payload=not is_to_send)
            packed = pack_rows(rows)
            if unpack_rows(packed) != rows:
                raise PackedRowsDamaged("not the same when they are read back")
            payload = connection.execute(_LARGE, this).one().updated_payload if is_to_send else None
            for table in reversed(_TABLES):
                connection.execute(delete(table).where(_is_of_it(table)), this)
            facts = {"people": list(brief.people), "holds_voices": brief.holds_voices, "packed": packed}
            connection.execute(insert(PackedRow), {"conversation_id": conversation_id, **facts})
            shrunk = {"brief_voices": brief.voices, "payload": payload, "now": time.time()}
            connection.execute(_SHRINK, {**this, **shrunk})
            return True

    def sizes(self) -> list[int]:
        """Return how many bytes each packed conversation takes."""
        with self._database.reading() as connection:
            return list(connection.scalars(select(func.length(PackedRow.packed))))

    def packed_among(self, conversation_ids: Collection[str]) -> set[str]:
        """Return which of these conversations are packed."""
        names, found = list(conversation_ids), set[str]()
        with self._database.reading() as connection:
            for first in range(0, len(names), ASKED_AT_ONCE):  # a database takes only so many values
                found.update(connection.scalars(_PACKED_AMONG, {"names": names[first : first + ASKED_AT_ONCE]}))
        return found


@contextmanager
def reading_unpacked(database: LedgerDatabase, conversation_id: str) -> Iterator[Connection]:
    """Lend the connection to read a conversation's rows; those that are packed are put back first."""
    with database.reading() as connection:
        if not database.has_row(_IS_PACKED, conversation_id):
            yield connection
            return
    with writing_unpacked(database, conversation_id) as connection:
        yield connection


@contextmanager
def writing_unpacked(database: LedgerDatabase, conversation_id: str) -> Iterator[Connection]:
    """Lend the connection for one transaction on a conversation's rows; those that are packed are put back first."""
    with database.writing(conversation_id) as connection:
        if database.has_row(_IS_PACKED, conversation_id):
            unpack(connection, conversation_id)
        yield connection


def unpack(connection: Connection, conversation_id: str) -> None:
    """Put a packed conversation's rows back; nothing where it is not packed. Raises `PackedRowsDamaged`."""
    this = {"of_conversation": conversation_id}
    packed: bytes | None = connection.scalar(_PACKED, this)
    if packed is None:
        return
    rows = unpack_rows(packed)
    for table in _TABLES:
        known = list(_insertable(rows.get(table.name, []), table))
        if known:
            connection.execute(insert(table), known)
    (facts,) = rows[_FACTS]
    connection.execute(_THIS.values(packed_at=None, **facts), this)
    connection.execute(_DROP, this)


def packed_payload(connection: Connection, conversation_id: str) -> bytes | None:
    """Return the latest update of a packed conversation, which stays packed. Raises `PackedRowsDamaged`."""
    packed: bytes | None = connection.scalar(_PACKED, {"of_conversation": conversation_id})
    if packed is None:
        return None
    (facts,) = unpack_rows(packed)[_FACTS]
    payload: bytes | None = facts.get("updated_payload")
    return payload


def _read_rows(connection: Connection, conversation_id: str, *, with_payload: bool) -> Rows:
    this = {"of_conversation": conversation_id}
    rows: Rows = {}
    for name, statement in _ROWS.items():
        rows[name] = [_plain(row) for row in connection.execute(statement, this).mappings()]
    facts = dict(connection.execute(_LARGE, this).mappings().one())
    if not with_payload:
        del facts["updated_payload"]
    rows[_FACTS] = [facts]
    for row in rows[ResultRow.__tablename__]:
        row["payload"] = _open_payload(row["payload"])
    return rows


def _plain(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row of any table
    return {name: str(value) if isinstance(value, str) else value for name, value in row.items()}


def _open_payload(payload: bytes) -> Any:  # noqa: ANN401 - a message, or its bytes
    """Return a result's fields, which pack better than its bytes; the bytes where they cannot be made of them again."""
    try:
        fields = msgpack.unpackb(payload)
    except (ValueError, msgpack.UnpackException):
        return payload
    return fields if msgpack.packb(fields) == payload else payload


def _insertable(rows: Sequence[dict[str, Any]], table: Table) -> Iterator[dict[str, Any]]:
    """Yield rows as the table has its columns now; a later version of it may lack some."""
    for row in rows:
        known = {name: value for name, value in row.items() if name in table.c}
        if "payload" in known and not isinstance(known["payload"], bytes):
            known["payload"] = msgpack.packb(known["payload"])
        yield known
