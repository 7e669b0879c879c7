"""Conversations in the ledger: what is known of each, how far its labels are, and what was deleted."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Row,
    Select,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    select,
    update,
)

from vps_bridge.ledger.both_dialects import insert, larger
from vps_bridge.ledger.columns import CONVERSATION_COLUMNS, LEASE_COLUMNS
from vps_bridge.ledger.conversation_changes import OF_CONVERSATION, THIS_CONVERSATION, mark_changed, open_conversation
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.deleted_people import delete_learned
from vps_bridge.ledger.erasure_log import Erased, Erasures
from vps_bridge.ledger.job_events import is_in, note_labelled
from vps_bridge.ledger.job_states import WITH_RESULT, JobState
from vps_bridge.ledger.omi_conversations import look_again
from vps_bridge.ledger.packing import reading_unpacked, unpack
from vps_bridge.ledger.records import (
    ConversationRecord,
    Deleted,
    LeaseRecord,
)
from vps_bridge.ledger.tables import (
    IS_UNFINISHED,
    ChunkRow,
    ConversationRow,
    CorrectionRow,
    EventRow,
    JobRow,
    LeaseRow,
    OmiConversationRow,
    PackedRow,
    RefusedChunkRow,
    TombstoneRow,
    WebhookRow,
)
from vps_bridge.ledger.webhook_outbox import WEBHOOK_IS_ON, queue_failed_labels, queue_update
from vps_bridge.rules.completion import CompletionFacts


@dataclass(frozen=True)
class UnappliedUpdate:
    """An update that is to be offered, and whether its conversation may change still."""

    payload: bytes
    is_open: bool


@dataclass(frozen=True)
class AssignedUpdate:
    """What an assignment found, to be noted in one transaction: the update to offer, and the voices with their numbers.

    `seen` is the conversation's `dirty` count when the evidence was read: a change since then needs another assignment.
    """

    voices: Any
    write_key: str
    payload: bytes
    final: bool
    done_jobs: tuple[str, ...]
    seen: int
    audio_places: Any = None
    """Where the audio lies in the transcript, as JSON."""


_OF_IT = ChunkRow.conversation_id == ConversationRow.conversation_id
_GET: Select[Any] = select(*CONVERSATION_COLUMNS).where(ConversationRow.conversation_id == OF_CONVERSATION)
_MARK_CLEAN = THIS_CONVERSATION.where(ConversationRow.dirty == bindparam("seen")).values(dirty=0)
TOMBSTONE = select(TombstoneRow.conversation_id).where(TombstoneRow.conversation_id == OF_CONVERSATION)
_IS_TEMPORARY = select(ConversationRow.throwaway).where(ConversationRow.conversation_id == OF_CONVERSATION)
_IS_DELETED = "SELECT 1 FROM tombstones WHERE conversation_id = ?"
_IS_ENROLMENT = "SELECT 1 FROM conversations WHERE conversation_id = ? AND enrols IS NOT NULL"
_IS_TOLD = f"{_IS_ENROLMENT} AND final_at IS NOT NULL AND applied_version >= updated_version"
_NEW_TOMBSTONE = insert(TombstoneRow)
_PUT_TOMBSTONE = _NEW_TOMBSTONE.on_conflict_do_update(
    index_elements=[TombstoneRow.conversation_id],
    set_={"deleted_at": _NEW_TOMBSTONE.excluded.deleted_at, "finished": _NEW_TOMBSTONE.excluded.finished},
)
_UNFINISHED = select(TombstoneRow.conversation_id).where(~TombstoneRow.finished)
_IS_TRIED = ConversationRow.set_aside.is_(None)
_DIRTY = select(ConversationRow.conversation_id).where(ConversationRow.dirty > literal_column("0"), _IS_TRIED)
_SET_ASIDE = select(ConversationRow.conversation_id, ConversationRow.set_aside).where(
    ConversationRow.set_aside.is_not(None)
)
_TRIES = ConversationRow.label_tries
_COUNT_TRY = THIS_CONVERSATION.values(label_tries=_TRIES + 1).returning(_TRIES)
_TAKE_TRY_BACK = THIS_CONVERSATION.values(label_tries=larger(0, _TRIES - 1))
_PUT_ASIDE = THIS_CONVERSATION.values(set_aside=bindparam("reason"))
_BRING_BACK = THIS_CONVERSATION.where(ConversationRow.set_aside.is_not(None)).values(
    set_aside=None, label_tries=0, dirty=ConversationRow.dirty + 1
)
_HAS_RESULT = exists().where(JobRow.conversation_id == ConversationRow.conversation_id, is_in(*WITH_RESULT))
_TO_ASSIGN = select(
    ConversationRow.dirty, (ConversationRow.final_at.is_not(None) | _HAS_RESULT).label("is_worth_it")
).where(ConversationRow.conversation_id == OF_CONVERSATION, ConversationRow.dirty > 0, _IS_TRIED)
_AUDIO_UNTIL_S = func.max(ChunkRow.captured_at_s + func.coalesce(ChunkRow.duration_s, literal_column("0")))
_ENDS = select(
    ConversationRow.conversation_id,
    select(func.count()).where(_OF_IT).scalar_subquery().label("chunks"),
    ConversationRow.completed_chunks,
    ConversationRow.last_audio_at_s,
    select(_AUDIO_UNTIL_S).where(_OF_IT).scalar_subquery().label("audio_until_s"),
)
ITS_END = _ENDS.where(ConversationRow.conversation_id == OF_CONVERSATION)
"""What `completed` named of a conversation and what of it is here, as `CompletionFacts`."""
_OPEN_ENDS = _ENDS.where(
    ConversationRow.completed,
    ConversationRow.final_at.is_(None),
    _IS_TRIED,
    ~select(ChunkRow.arrival).where(_OF_IT, ~ChunkRow.covered).exists(),
    ~select(JobRow.number).where(JobRow.conversation_id == ConversationRow.conversation_id, IS_UNFINISHED).exists(),
)
_OPEN_END = _OPEN_ENDS.where(ConversationRow.conversation_id == OF_CONVERSATION)
_IS_OPEN_ENDED = "SELECT 1 FROM conversations WHERE conversation_id = ? AND completed AND final_at IS NULL"
_UNAPPLIED = select(ConversationRow.conversation_id, ConversationRow.updated_version).where(
    ConversationRow.applied_version < ConversationRow.updated_version
)
_UNAPPLIED_UPDATE = select(
    ConversationRow.updated_payload.label("payload"), ConversationRow.final_at.is_(None).label("is_open")
).where(
    ConversationRow.conversation_id == OF_CONVERSATION,
    ConversationRow.applied_version < ConversationRow.updated_version,
)
_LEASES_OF_IT = (
    select(*LEASE_COLUMNS)
    .join(JobRow, JobRow.lease_id == LeaseRow.lease_id)
    .where(JobRow.conversation_id == OF_CONVERSATION, JobRow.state == JobState.LEASED)
)

_SETTLED = {
    "dirty": case((ConversationRow.dirty == bindparam("seen"), 0), else_=ConversationRow.dirty),
    "label_tries": 0,
    "final_at": func.coalesce(ConversationRow.final_at, bindparam("final_since")),
}
_SETTLE = THIS_CONVERSATION.values(**_SETTLED)
_NOTE_UPDATE = THIS_CONVERSATION.values(
    voices=bindparam("new_voices", type_=JSON),
    write_key=bindparam("new_write_key"),
    updated_version=ConversationRow.updated_version + 1,
    updated_payload=bindparam("payload"),
    audio_places=bindparam("new_places", type_=JSON),
    **_SETTLED,
).returning(
    WEBHOOK_IS_ON.exists(), exists().where(OmiConversationRow.conversation_id == ConversationRow.conversation_id)
)


class ConversationBook:
    """Conversations, and the tombstones of deleted ones."""

    def __init__(self, database: LedgerDatabase, erasures: Erasures) -> None:
        """Work on the ledger's database."""
        self._database, self._erasures = database, erasures

    def get(self, conversation_id: str) -> ConversationRecord | None:
        """Return a conversation, or None where it was never heard of or is deleted."""
        record = self.peek(conversation_id)
        if record is None or record.packed_at is None:
            return record
        with reading_unpacked(self._database, conversation_id) as connection:
            row = connection.execute(_GET, {"of_conversation": conversation_id}).first()
            return _to_record(row) if row else None

    def peek(self, conversation_id: str) -> ConversationRecord | None:
        """Return a conversation as it is: of a packed one without what is packed, but with an update still to send."""
        with self._database.reading() as connection:
            row = connection.execute(_GET, {"of_conversation": conversation_id}).first()
            return _to_record(row) if row else None

    def unapplied_update(self, conversation_id: str) -> UnappliedUpdate | None:
        """Return a conversation's update, None where there is none that the backend has not confirmed."""
        with self._database.reading() as connection:
            row = connection.execute(_UNAPPLIED_UPDATE, {"of_conversation": conversation_id}).first()
            return None if row is None or row.payload is None else UnappliedUpdate(row.payload, row.is_open)

    def is_deleted(self, conversation_id: str) -> bool:
        """Whether a tombstone stands for this conversation."""
        with self._database.reading():
            return self._database.has_row(_IS_DELETED, conversation_id)

    def note_undo(self, conversation_id: str) -> None:
        """Note that a person took labels back: the others are worked out anew."""
        with self._database.writing(conversation_id) as connection:
            mark_changed(connection, conversation_id)

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
        if not row.is_worth_it:
            with self._database.writing(conversation_id) as connection:
                connection.execute(_MARK_CLEAN, {**it, "seen": row.dirty})
        return bool(row.is_worth_it)

    def awaiting_final(self) -> list[CompletionFacts]:
        """Return the completed conversations that are not final, and whose chunks all are in jobs that have ended."""
        with self._database.reading() as connection:
            return [CompletionFacts(**row._asdict()) for row in connection.execute(_OPEN_ENDS)]

    def find_completion(self, conversation_id: str) -> CompletionFacts | None:
        """Return a conversation if it is one of `awaiting_final`."""
        with self._database.reading() as connection:
            if not self._database.has_row(_IS_OPEN_ENDED, conversation_id):
                return None
            row = connection.execute(_OPEN_END, {"of_conversation": conversation_id}).first()
            return CompletionFacts(**row._asdict()) if row else None

    def latest_open(self, limit: int) -> list[str]:
        """Return the conversations that are not final, the one that changed last as the last."""
        columns = ConversationRow.conversation_id, ConversationRow.last_activity_at
        # Those are found first: the latest of all may be none of them.
        few = select(*columns).where(ConversationRow.final_at.is_(None)).offset(0).subquery()
        latest = select(few.c.conversation_id).order_by(few.c.last_activity_at.desc()).limit(limit)
        with self._database.reading() as connection:
            return list(connection.scalars(latest))[::-1]

    def unapplied(self) -> list[tuple[str, int]]:
        """Return (conversation, version) of each latest update that the backend has not confirmed with `applied`."""
        with self._database.reading() as connection:
            return [(name, version) for name, version in connection.execute(_UNAPPLIED)]

    def note_nothing_new(self, conversation_id: str, *, final: bool, done_jobs: tuple[str, ...], seen: int) -> None:
        """Note that an assignment changed nothing that the backend does not know already."""
        with self._database.writing(conversation_id) as connection:
            note_labelled(connection, done_jobs)  # jobs before their conversation: see `jobs`
            connection.execute(_SETTLE, {"of_conversation": conversation_id, **_settled(final=final, seen=seen)})

    def note_update(self, conversation_id: str, made: AssignedUpdate) -> None:
        """Note an assignment with its update; from here on the update is offered."""
        noted = {"new_voices": made.voices, "new_write_key": made.write_key, "payload": made.payload}
        noted["new_places"] = made.audio_places
        settled = _settled(final=made.final, seen=made.seen)
        with self._database.writing(conversation_id) as connection:
            note_labelled(connection, made.done_jobs)
            updated = connection.execute(_NOTE_UPDATE, {"of_conversation": conversation_id, **noted, **settled}).first()
            has_webhook, is_of_omi = updated or (False, False)
            if has_webhook:
                queue_update(connection, conversation_id)
            if is_of_omi:
                look_again(connection, conversation_id)

    def take_up(self, conversation_id: str) -> ConversationRecord | None:
        """Return a conversation that will be written to: it is packed no more. None where it is deleted."""
        record = self.peek(conversation_id)
        if record is None or record.packed_at is None:
            return record
        with self._database.writing(conversation_id) as connection:
            unpack(connection, conversation_id)
        return self.peek(conversation_id)

    def count_try(self, conversation_id: str) -> int:
        """Count an attempt at labels that came to nothing, or may; return how many in a row. A good one resets it."""
        with self._database.writing(conversation_id) as connection:
            return connection.scalar(_COUNT_TRY, {"of_conversation": conversation_id}) or 0

    def take_try_back(self, conversation_id: str) -> None:
        """Do not count the last attempt: that it came to nothing was not the conversation's fault."""
        with self._database.writing(conversation_id) as connection:
            connection.execute(_TAKE_TRY_BACK, {"of_conversation": conversation_id})

    def put_aside(self, conversation_id: str, reason: str) -> None:
        """Let nothing work out this conversation's labels until `bring_back`."""
        with self._database.writing(conversation_id) as connection:
            connection.execute(_PUT_ASIDE, {"of_conversation": conversation_id, "reason": reason})
            queue_failed_labels(connection, conversation_id, reason)

    def bring_back(self, conversation_id: str) -> bool:
        """Let labels be worked out again; False where the conversation was not set aside."""
        with self._database.writing(conversation_id) as connection:
            return bool(connection.execute(_BRING_BACK, {"of_conversation": conversation_id}).rowcount)

    def set_aside(self) -> list[tuple[str, str]]:
        """Return (conversation, reason) of those that were set aside."""
        with self._database.reading() as connection:
            return [(name, reason or "") for name, reason in connection.execute(_SET_ASIDE)]

    def quiet_since(self, moment: float) -> list[str]:
        """Return the conversations that nothing has happened to since a Unix time, the quietest first.

        What happens to one is an event, audio, a result, a retry or an undo.
        """
        query = (
            select(ConversationRow.conversation_id)
            .where(ConversationRow.last_activity_at <= moment)
            .order_by(ConversationRow.last_activity_at)
        )
        with self._database.reading() as connection:
            return list(connection.scalars(query))

    def open_temporary(self, conversation_id: str) -> None:
        """Make a temporary conversation: one that is deleted with the answer it was made for."""
        with self._database.writing(conversation_id) as connection:
            open_conversation(connection, conversation_id)
            connection.execute(THIS_CONVERSATION.values(throwaway=True), {"of_conversation": conversation_id})

    def temporary(self, *, quiet_since: float = math.inf) -> list[str]:
        """Return the temporary conversations that nothing has happened to since a Unix time."""
        query = select(ConversationRow.conversation_id).where(
            ConversationRow.throwaway, ConversationRow.last_activity_at <= quiet_since
        )
        with self._database.reading() as connection:
            return list(connection.scalars(query))

    def is_enrolment(self, conversation_id: str) -> bool:
        """Whether a conversation is an enrolment: audio of which a person's voice is learned. Few are."""
        with self._database.reading():
            return self._database.has_row(_IS_ENROLMENT, conversation_id)

    def is_told_enrolment(self, conversation_id: str) -> bool:
        """Whether a conversation is an enrolment whose outcome the backend has confirmed. Few are one at all."""
        with self._database.reading():
            return self._database.has_row(_IS_TOLD, conversation_id)

    def mark_deleted(self, conversation_id: str) -> None:
        """Write the tombstone alone: what comes from now on is discarded, and the running bridge erases the rest."""
        with self._database.writing(conversation_id) as connection:
            self._put_tombstone(connection, conversation_id)

    def unfinished_deletions(self) -> list[str]:
        """Return the deleted conversations of which something may be left."""
        with self._database.reading() as connection:
            return list(connection.scalars(_UNFINISHED))

    def finish_deletion(self, conversation_id: str) -> None:
        """Note that nothing is left of a deleted conversation, rows and files."""
        with self._database.writing(conversation_id) as connection:
            this = update(TombstoneRow).where(TombstoneRow.conversation_id == conversation_id)
            connection.execute(this.values(finished=True))

    def delete(self, conversation_id: str) -> Deleted:
        """Write the tombstone and remove every row, in one transaction; return what is left to undo outside."""
        with self._database.writing(conversation_id) as connection:
            self._put_tombstone(connection, conversation_id)
            rows = connection.execute(_LEASES_OF_IT, {"of_conversation": conversation_id})
            leases = tuple(LeaseRecord(*row) for row in rows)
            mine = ChunkRow.conversation_id == conversation_id
            names = tuple(name for name in connection.scalars(select(ChunkRow.spool_name).where(mine)) if name)
            delete_learned(connection, conversation_id)
            for table in (
                PackedRow,
                ChunkRow,
                JobRow,
                EventRow,
                CorrectionRow,
                RefusedChunkRow,
                WebhookRow,
                ConversationRow,
            ):
                connection.execute(delete(table).where(table.conversation_id == conversation_id))
            # Whose it was and when stays until what OMI sent of it is erased; whom it named goes now.
            told = update(OmiConversationRow).where(OmiConversationRow.conversation_id == conversation_id)
            connection.execute(told.values(sent_labels={}, assigned={}, untold=False, gone=True))
            return Deleted(names, leases)

    def _put_tombstone(self, connection: Connection, conversation_id: str) -> None:
        """Write the tombstone, and the erasure before it; temporary conversations end with every bridge anyway."""
        it = {"of_conversation": conversation_id}
        is_temporary = connection.scalar(_IS_TEMPORARY, it)
        if not is_temporary and connection.execute(TOMBSTONE, it).first() is None:
            self._erasures.note(connection, Erased.CONVERSATION, conversation_id)
        stone = {"conversation_id": conversation_id, "deleted_at": time.time(), "finished": False}
        connection.execute(_PUT_TOMBSTONE, stone)


def _settled(*, final: bool, seen: int) -> dict[str, Any]:
    return {"seen": seen, "final_since": time.time() if final else None}


def _to_record(row: Row[*tuple[Any, ...]]) -> ConversationRecord:
    *facts, model, revision = row
    return ConversationRecord(*facts, embedding=None if model is None or revision is None else (model, revision))
