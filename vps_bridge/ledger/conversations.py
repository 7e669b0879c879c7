"""Conversations in the ledger: what the backend told of them, and what it was told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    BindParameter,
    Connection,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from schemas.conversation import ConversationEvent, EventType, Verdict
from schemas.failure import FailureCode
from vps_bridge.database import Database
from vps_bridge.ledger.records import (
    ConversationRecord,
    ConversationState,
    Deleted,
    JobState,
    LeaseRecord,
    OpenEnd,
    SpeakerHints,
)
from vps_bridge.ledger.tables import (
    BUSY,
    CONVERSATION_COLUMNS,
    LEASE_COLUMNS,
    ChunkRow,
    ConversationRow,
    EventRow,
    JobRow,
    LeaseRow,
    TombstoneRow,
)


@dataclass(frozen=True)
class AssignedUpdate:
    """An assignment about to be noted: the update to offer and the voices it stands on.

    `seen` is how dirty the conversation was when it was read: what changed since then asks for another assignment.
    """

    voices: Any
    write_key: str
    payload: bytes
    final: bool
    done_jobs: tuple[str, ...]
    seen: int


# A name in an UPDATE that is no column's: which conversation it is about.
_ID: BindParameter[str] = bindparam("of_conversation")
_OF_IT = ChunkRow.conversation_id == ConversationRow.conversation_id
_GET = select(*CONVERSATION_COLUMNS).where(ConversationRow.conversation_id == _ID)
_NEW = insert(ConversationRow).on_conflict_do_nothing()
_THIS = update(ConversationRow).where(ConversationRow.conversation_id == _ID)
_MARK_DIRTY = _THIS.values(dirty=ConversationRow.dirty + 1)
_MARK_CLEAN = _THIS.where(ConversationRow.dirty == bindparam("seen")).values(dirty=0)
_TOMBSTONE = select(TombstoneRow.conversation_id).where(TombstoneRow.conversation_id == _ID)
_BURIED = insert(TombstoneRow)
_BURY = _BURIED.on_conflict_do_update(
    index_elements=[TombstoneRow.conversation_id],
    set_={"deleted_at": _BURIED.excluded.deleted_at, "finished": _BURIED.excluded.finished},
)
_UNFINISHED = select(TombstoneRow.conversation_id).where(TombstoneRow.finished == literal_column("0"))
_SEEN_EVENT = select(EventRow.verdict, EventRow.reason).where(
    EventRow.conversation_id == _ID, EventRow.event_id == bindparam("event_id")
)
_EVENT = insert(EventRow)
_NOTE_EVENT = _EVENT.on_conflict_do_update(
    index_elements=[EventRow.conversation_id, EventRow.event_id],
    set_={"verdict": _EVENT.excluded.verdict, "reason": _EVENT.excluded.reason},
)
_REVISIONS = select(ConversationRow.started_revision, ConversationRow.completed_revision).where(
    ConversationRow.conversation_id == _ID
)
_DIRTY = select(ConversationRow.conversation_id).where(ConversationRow.dirty > literal_column("0"))
_HAS_RESULTS = exists().where(
    JobRow.conversation_id == ConversationRow.conversation_id, JobRow.state.in_((JobState.TURNS_STORED, JobState.DONE))
)
_TO_ASSIGN = select(ConversationRow.dirty, (ConversationRow.final_at.is_not(None)) | _HAS_RESULTS).where(
    ConversationRow.conversation_id == _ID, ConversationRow.dirty > 0
)
_AUDIO_UNTIL_S = func.max(ChunkRow.captured_at_s + func.coalesce(ChunkRow.duration_s, literal_column("0")))
_OPEN_ENDS = select(
    ConversationRow.conversation_id,
    select(func.count()).where(_OF_IT).scalar_subquery(),
    ConversationRow.completed_chunks,
    ConversationRow.last_audio_at_s,
    select(_AUDIO_UNTIL_S).where(_OF_IT).scalar_subquery(),
).where(
    ConversationRow.completed,
    ConversationRow.final_at.is_(None),
    ~select(ChunkRow.arrival).where(_OF_IT, ~ChunkRow.covered).exists(),
    ~select(JobRow.number).where(JobRow.conversation_id == ConversationRow.conversation_id, BUSY).exists(),
)
_OPEN_END = _OPEN_ENDS.where(ConversationRow.conversation_id == _ID)
_UNAPPLIED = select(ConversationRow.conversation_id, ConversationRow.updated_version).where(
    ConversationRow.applied_version < ConversationRow.updated_version
)
_LEASES_OF_IT = (
    select(*LEASE_COLUMNS)
    .join(JobRow, JobRow.lease_id == LeaseRow.lease_id)
    .where(JobRow.conversation_id == _ID, JobRow.state == JobState.LEASED)
)

# A later hint replaces an earlier one; None leaves it.
_HINTS: dict[str, Any] = {
    "num_speakers": func.coalesce(bindparam("num"), ConversationRow.num_speakers),
    "min_speakers": func.coalesce(bindparam("minimum"), ConversationRow.min_speakers),
    "max_speakers": func.coalesce(bindparam("maximum"), ConversationRow.max_speakers),
}
# The time is kept while the state stays the same. In an UPDATE every column on the right is what it was before.
_STATE = {
    "state": bindparam("new_state"),
    "since_at": case(
        (ConversationRow.state == bindparam("new_state"), ConversationRow.since_at), else_=bindparam("now")
    ),
}
_TAKE_UP = _THIS.values(final_at=None, completed=ConversationRow.completed | bindparam("completes"), **_HINTS, **_STATE)
_TAKE_BACK_UP = _THIS.values(final_at=None, **_STATE)
_SETTLED = {
    "dirty": case((ConversationRow.dirty == bindparam("seen"), 0), else_=ConversationRow.dirty),
    "final_at": func.coalesce(ConversationRow.final_at, bindparam("final_since")),
    **_STATE,
}
_SETTLE = _THIS.values(**_SETTLED)
_NOTE_UPDATE = _THIS.values(
    voices=bindparam("new_voices", type_=JSON),
    write_key=bindparam("new_write_key"),
    updated_version=ConversationRow.updated_version + 1,
    updated_payload=bindparam("payload"),
    **_SETTLED,
)
_JOBS_DONE = (
    update(JobRow)
    .where(JobRow.job_id.in_(bindparam("job_ids", expanding=True)), JobRow.state == JobState.TURNS_STORED)
    .values(state=JobState.DONE, ended_at=bindparam("now"))
)
_TAKE_IN = {
    EventType.STARTED: _THIS.values(
        started_revision=bindparam("revision"),
        started_at_s=func.coalesce(bindparam("told_start_s"), ConversationRow.started_at_s),
        language=func.coalesce(bindparam("told_language"), ConversationRow.language),
        final_at=None,
        dirty=ConversationRow.dirty + 1,
        **_HINTS,
    ),
    EventType.SEGMENTS: _THIS.values(final_at=None, dirty=ConversationRow.dirty + 1, **_HINTS),
    EventType.COMPLETED: _THIS.values(
        completed_revision=bindparam("revision"),
        completed=True,
        completed_chunks=bindparam("chunks"),
        last_audio_at_s=bindparam("told_audio_s"),
        dirty=ConversationRow.dirty + 1,
        **_HINTS,
    ),
    EventType.APPLIED: _THIS.values(
        applied_version=func.max(
            ConversationRow.applied_version, func.min(bindparam("version"), ConversationRow.updated_version)
        ),
        **_HINTS,
    ),
    EventType.RESYNC: _THIS.values(
        applied_version=func.max(0, func.min(ConversationRow.applied_version, ConversationRow.updated_version - 1)),
        **_HINTS,
    ),
}


class ConversationBook:
    """Conversations, their events, and the tombstones of deleted ones."""

    def __init__(self, database: Database) -> None:
        """Work on the ledger's database."""
        self._database = database

    def get(self, conversation_id: str) -> ConversationRecord | None:
        """Return a conversation, or None where it was never heard of or is deleted."""
        with self._database.reading() as connection:
            row = connection.execute(_GET, {"of_conversation": conversation_id}).first()
            return _to_record(row) if row else None

    def all(self) -> list[ConversationRecord]:
        """Return every conversation, the one that changed last first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(*CONVERSATION_COLUMNS).order_by(ConversationRow.since_at.desc()))
            return [_to_record(row) for row in rows]

    def is_deleted(self, conversation_id: str) -> bool:
        """Whether a tombstone stands for this conversation."""
        with self._database.reading() as connection:
            return connection.execute(_TOMBSTONE, {"of_conversation": conversation_id}).first() is not None

    def answer_without(self, event: ConversationEvent, conversation_id: str) -> tuple[Verdict, str | None] | None:
        """Return the answer to an event that is not to be taken in, or None where it is.

        Its conversation is deleted, or it was answered before, or it is a `started` or `completed` after which one of
        a higher revision came already.
        """
        it = {"of_conversation": conversation_id}
        with self._database.reading() as connection:
            if connection.execute(_TOMBSTONE, it).first() is not None:
                return Verdict.DISCARDED, FailureCode.CONVERSATION_DELETED
            seen = connection.execute(_SEEN_EVENT, {**it, "event_id": event.event_id}).first()
            if seen is not None:
                return Verdict(seen.verdict), seen.reason
            row = connection.execute(_REVISIONS, it).first()
        newest = {EventType.STARTED: row.started_revision, EventType.COMPLETED: row.completed_revision} if row else {}
        if event.revision < newest.get(event.type, -1):
            return Verdict.DISCARDED, FailureCode.REVISION_STALE
        return None

    def note_event(
        self, event: ConversationEvent, conversation_id: str, verdict: Verdict, reason: str | None = None
    ) -> None:
        """Take in any event but `deleted` with the answer it gets; of `segments` the store has what counts by now.

        An event that is not accepted changes nothing. A final conversation is taken back up by what it stands on.
        """
        answer = {"event_id": event.event_id, "verdict": verdict, "reason": reason}
        with self._database.writing() as connection:
            _open(connection, conversation_id)
            if verdict is Verdict.ACCEPTED:
                connection.execute(_TAKE_IN[event.type], {"of_conversation": conversation_id, **_read_event(event)})
            connection.execute(_NOTE_EVENT, {"conversation_id": conversation_id, **answer})

    def mark_dirty(self, conversation_id: str) -> None:
        """Ask for a new assignment."""
        with self._database.writing() as connection:
            mark_dirty(connection, conversation_id)

    def dirty(self) -> list[str]:
        """Return the conversations whose labels may be out of date."""
        with self._database.reading() as connection:
            return list(connection.scalars(_DIRTY))

    def is_to_assign(self, conversation_id: str) -> bool:
        """Whether a conversation's labels may be out of date and there are results to make them of.

        Without results there is nothing to assign: it goes on waiting and is not dirty any more, unless it is final.
        What became dirty between the two transactions stays so.
        """
        it = {"of_conversation": conversation_id}
        with self._database.reading() as connection:
            row = connection.execute(_TO_ASSIGN, it).first()
        if row is None:
            return False
        seen, is_worth_it = row
        if not is_worth_it:
            with self._database.writing() as connection:
                connection.execute(_MARK_CLEAN, {**it, "seen": seen})
        return bool(is_worth_it)

    def open_ended(self) -> list[OpenEnd]:
        """Return the completed conversations that are not final, and whose chunks all are in jobs that have ended."""
        with self._database.reading() as connection:
            return [OpenEnd(*row) for row in connection.execute(_OPEN_ENDS)]

    def open_end(self, conversation_id: str) -> OpenEnd | None:
        """Return a conversation if it is one of `open_ended`."""
        with self._database.reading() as connection:
            row = connection.execute(_OPEN_END, {"of_conversation": conversation_id}).first()
            return OpenEnd(*row) if row else None

    def unapplied(self) -> list[tuple[str, int]]:
        """Return (conversation, version) of each latest update that the backend has not confirmed."""
        with self._database.reading() as connection:
            return [(name, version) for name, version in connection.execute(_UNAPPLIED)]

    def note_nothing_new(self, conversation_id: str, *, final: bool, done_jobs: tuple[str, ...], seen: int) -> None:
        """Note that an assignment changed nothing that the backend does not know already."""
        with self._database.writing() as connection:
            connection.execute(_SETTLE, {"of_conversation": conversation_id, **_settled(final=final, seen=seen)})
            _note_done(connection, done_jobs)

    def note_update(self, conversation_id: str, made: AssignedUpdate) -> None:
        """Note an assignment with the update that tells of it; from here on the update is offered."""
        told = {"new_voices": made.voices, "new_write_key": made.write_key, "payload": made.payload}
        settled = _settled(final=made.final, seen=made.seen)
        with self._database.writing() as connection:
            connection.execute(_NOTE_UPDATE, {"of_conversation": conversation_id, **told, **settled})
            _note_done(connection, made.done_jobs)

    def quiet_since(self, moment: float) -> list[str]:
        """Return the conversations that nothing has happened to since a Unix time, the quietest first."""
        recent = ChunkRow.conversation_id == ConversationRow.conversation_id, ChunkRow.accepted_at > moment
        query = (
            select(ConversationRow.conversation_id)
            .where(ConversationRow.since_at <= moment, ~select(ChunkRow.arrival).where(*recent).exists())
            .order_by(ConversationRow.since_at)
        )
        with self._database.reading() as connection:
            return list(connection.scalars(query))

    def open_throwaway(self, conversation_id: str) -> None:
        """Begin a conversation that is deleted with the answer it was made for."""
        with self._database.writing() as connection:
            _open(connection, conversation_id)
            connection.execute(_THIS.values(throwaway=True), {"of_conversation": conversation_id})

    def throwaways(self) -> list[str]:
        """Return the conversations that are to be deleted with an answer."""
        with self._database.reading() as connection:
            return list(connection.scalars(select(ConversationRow.conversation_id).where(ConversationRow.throwaway)))

    def bury(self, conversation_id: str) -> None:
        """Put up the tombstone alone: what comes from now on is discarded, and the running bridge erases the rest."""
        with self._database.writing() as connection:
            _bury(connection, conversation_id)

    def unfinished_deletions(self) -> list[str]:
        """Return the deleted conversations of which something may be left."""
        with self._database.reading() as connection:
            return list(connection.scalars(_UNFINISHED))

    def finish_deletion(self, conversation_id: str) -> None:
        """Note that nothing is left of a deleted conversation, rows and files."""
        with self._database.writing() as connection:
            this = update(TombstoneRow).where(TombstoneRow.conversation_id == conversation_id)
            connection.execute(this.values(finished=True))

    def delete(self, conversation_id: str) -> Deleted:
        """Put up the tombstone and remove every row, in one transaction; return what is left to undo outside."""
        with self._database.writing() as connection:
            _bury(connection, conversation_id)
            rows = connection.execute(_LEASES_OF_IT, {"of_conversation": conversation_id})
            leases = tuple(LeaseRecord(*row) for row in rows)
            mine = ChunkRow.conversation_id == conversation_id
            names = tuple(name for name in connection.scalars(select(ChunkRow.spool_name).where(mine)) if name)
            for table in (ChunkRow, JobRow, EventRow, ConversationRow):
                connection.execute(delete(table).where(table.conversation_id == conversation_id))
            return Deleted(names, leases)


def take_up(connection: Connection, conversation_id: str, hints: SpeakerHints, *, completed: bool) -> None:
    """Let a conversation, a new one where need be, wait for what its new audio brings."""
    _open(connection, conversation_id)
    state = _state(ConversationState.WAITING)
    told = {"completes": completed, "num": hints.num or None, "minimum": hints.minimum or None}
    about = {"of_conversation": conversation_id, "maximum": hints.maximum or None}
    connection.execute(_TAKE_UP, {**about, **told, **state})


def take_back_up(connection: Connection, conversation_id: str) -> None:
    """Let a conversation wait for a job that is tried again."""
    connection.execute(_TAKE_BACK_UP, {"of_conversation": conversation_id, **_state(ConversationState.WAITING)})


def mark_dirty(connection: Connection, conversation_id: str) -> None:
    """Ask for a new assignment."""
    connection.execute(_MARK_DIRTY, {"of_conversation": conversation_id})


def _open(connection: Connection, conversation_id: str) -> None:
    new = {"conversation_id": conversation_id, "state": ConversationState.WAITING, "since_at": time.time()}
    connection.execute(_NEW, new)


def _bury(connection: Connection, conversation_id: str) -> None:
    connection.execute(_BURY, {"conversation_id": conversation_id, "deleted_at": time.time(), "finished": False})


def _state(state: ConversationState) -> dict[str, Any]:
    return {"new_state": state, "now": time.time()}


def _settled(*, final: bool, seen: int) -> dict[str, Any]:
    state = _state(ConversationState.FINAL if final else ConversationState.ASSIGNED)
    return {"seen": seen, "final_since": state["now"] if final else None, **state}


def _note_done(connection: Connection, job_ids: tuple[str, ...]) -> None:
    if job_ids:
        connection.execute(_JOBS_DONE, {"job_ids": job_ids, "now": time.time()})


def _to_record(row: Sequence[Any]) -> ConversationRecord:
    conversation_id, state, *facts, model, revision = row
    embedding = None if model is None or revision is None else (model, revision)
    return ConversationRecord(conversation_id, ConversationState(state), *facts, embedding=embedding)


def _read_event(event: ConversationEvent) -> dict[str, Any]:
    """Return what the statement of its type in `_TAKE_IN` needs of an event."""
    told: dict[str, Any] = {}
    if event.type is EventType.STARTED:
        start_s = event.started_at.timestamp() if event.started_at else None
        told = {"revision": event.revision, "told_start_s": start_s, "told_language": event.language or None}
    elif event.type is EventType.COMPLETED:
        audio_s = event.last_audio_at.timestamp() if event.last_audio_at else None
        told = {"revision": event.revision, "chunks": event.chunks, "told_audio_s": audio_s}
    elif event.type is EventType.APPLIED:
        told = {"version": event.updated_version or 0}
    return {
        **told,
        "num": event.num_speakers or None,
        "minimum": event.min_speakers or None,
        "maximum": event.max_speakers or None,
    }
