"""The webhook's outbox: what its receiver has not confirmed, written in the transaction that it tells of.

It holds nothing while the webhook is off. The latest update of a conversation replaces one that waits, as over MQTT,
and the latest failure of a job one of the same job.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import BindParameter, Connection, LargeBinary, Text, bindparam, delete, func, insert, select, update

from schemas.codec import encode
from schemas.conversation import ConversationUpdated
from schemas.failure import FailureCode, JobFailure
from vps_bridge.ledger.both_dialects import SERVER_DIALECT
from vps_bridge.ledger.both_dialects import insert as upsert
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.tables import ConversationRow, JobRow, MetaRow, WebhookRow

WEBHOOK = "webhook"  # the key in `meta` that is there while the webhook is on
UPDATED, LABELS = "updated", "labels"  # a job's failure has the job's id as its subject

# Statements are made once: making one costs several times what running it does.
WEBHOOK_IS_ON = select(MetaRow.key).where(MetaRow.key == WEBHOOK)
_CONVERSATION: BindParameter[str] = bindparam("of_conversation")
_IS_TEMPORARY = select(ConversationRow.throwaway).where(
    ConversationRow.conversation_id == _CONVERSATION, ConversationRow.throwaway
)
_JOB = select(JobRow.conversation_id, JobRow.attempts).where(JobRow.job_id == bindparam("of_job"))
_REPLACED = WebhookRow.conversation_id == _CONVERSATION, WebhookRow.subject == bindparam("subject")
_SINCE, _ERROR, _TRIED = (
    select(column).where(*_REPLACED).scalar_subquery()
    for column in (WebhookRow.created_at, WebhookRow.last_error, WebhookRow.tried_at)
)
# How long it waits and why it does is taken over from what is replaced; the number is new, and with it the order.
_QUEUED = select(
    bindparam("delivery_id", type_=Text),
    _CONVERSATION,
    bindparam("subject", type_=Text),
    bindparam("payload", type_=LargeBinary),
    func.coalesce(_SINCE, bindparam("now")),
    _ERROR,
    _TRIED,
).where(WEBHOOK_IS_ON.exists(), ~_IS_TEMPORARY.exists())
_NAMES = ("delivery_id", "conversation_id", "subject", "payload", "created_at", "last_error", "tried_at")
_QUEUE = insert(WebhookRow).prefix_with("OR REPLACE").from_select(_NAMES, _QUEUED)
# PostgreSQL has no such prefix, and SQLite gives a row that conflicts no new number.
_NEW = upsert(WebhookRow).from_select(_NAMES, _QUEUED)
_QUEUE_ON_SERVER = _NEW.on_conflict_do_update(
    index_elements=[WebhookRow.conversation_id, WebhookRow.subject],
    set_={name: _NEW.excluded[name] for name in ("number", "delivery_id", "payload")},
)
_FIRST_OF_EACH = select(func.min(WebhookRow.number)).group_by(WebhookRow.conversation_id)
_FIRSTS = (
    select(
        WebhookRow.number,
        WebhookRow.delivery_id,
        WebhookRow.conversation_id,
        WebhookRow.payload,
        ConversationRow.updated_payload,
    )
    .outerjoin(ConversationRow, ConversationRow.conversation_id == WebhookRow.conversation_id)
    .where(
        WebhookRow.number.in_(_FIRST_OF_EACH),
        WebhookRow.conversation_id.not_in(bindparam("resting", expanding=True)),
    )
    .limit(1)
)
# Not by number: one that is replaced again and again would never come first.
_OLDEST = _FIRSTS.order_by(WebhookRow.created_at, WebhookRow.number)
_NEWEST = _FIRSTS.order_by(WebhookRow.number.desc())
_THIS = WebhookRow.number == bindparam("of_number")
_SENT = delete(WebhookRow).where(_THIS)
_FAILED = update(WebhookRow).where(_THIS).values(last_error=bindparam("error"), tried_at=bindparam("now"))
_COUNTS = select(func.count(), func.min(WebhookRow.created_at))
_LAST_ERROR = (
    select(WebhookRow.last_error, WebhookRow.tried_at)
    .where(WebhookRow.tried_at.is_not(None))
    .order_by(WebhookRow.tried_at.desc())
    .limit(1)
)


@dataclass(frozen=True)
class WebhookMessage:
    """A message that is to be sent."""

    number: int
    delivery_id: str
    """The same for every attempt at this message, and for no other."""
    conversation_id: str
    schema_name: str
    body: bytes


@dataclass(frozen=True)
class WebhookCounts:
    """What waits. Times are Unix seconds; `last_error` says why what was tried last, at `tried_at`, was not taken."""

    waiting: int
    oldest_at: float | None
    last_error: str | None
    tried_at: float | None = None


class WebhookBook:
    """What waits for the webhook's receiver."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def turn_on(self) -> None:
        """Keep from now on what is to be sent. What happened while it was off is not told."""
        with self._database.writing() as connection:
            connection.execute(upsert(MetaRow).values(key=WEBHOOK, value="on").on_conflict_do_nothing())

    def turn_off(self) -> int:
        """Keep nothing more, and forget what waits; return how much that was."""
        with self._database.writing() as connection:
            connection.execute(delete(MetaRow).where(MetaRow.key == WEBHOOK))
            return connection.execute(delete(WebhookRow)).rowcount

    def next(self, resting: Collection[str], *, newest: bool = False) -> WebhookMessage | None:
        """Return what waits longest of what comes first in its conversation, `resting` conversations left out.

        `newest`: what waits for the shortest time.
        """
        with self._database.reading() as connection:
            row = connection.execute(_NEWEST if newest else _OLDEST, {"resting": list(resting)}).first()
        if row is None:
            return None
        number, delivery_id, conversation_id, failure, updated = row
        schema = ConversationUpdated if failure is None else JobFailure
        return WebhookMessage(number, delivery_id, conversation_id, schema.SCHEMA, failure or updated or b"")

    def note_sent(self, number: int) -> None:
        """Forget a message: the receiver has it. One that a later one has replaced meanwhile is gone already."""
        with self._database.writing() as connection:
            connection.execute(_SENT, {"of_number": number})

    def note_failed(self, number: int, error: str) -> None:
        """Note that a message was not taken, and why."""
        with self._database.writing() as connection:
            connection.execute(_FAILED, {"of_number": number, "error": error, "now": time.time()})

    def counts(self) -> WebhookCounts | None:
        """Return what waits, or None where the webhook is off."""
        with self._database.reading() as connection:
            if connection.execute(WEBHOOK_IS_ON).first() is None:
                return None
            waiting, oldest_at = connection.execute(_COUNTS).one()
            last_error, tried_at = connection.execute(_LAST_ERROR).first() or (None, None)
            return WebhookCounts(waiting, oldest_at, last_error, tried_at)


def queue_update(connection: Connection, conversation_id: str) -> None:
    """Have the conversation's latest update sent, whichever that is then; nothing where the webhook is off."""
    _queue(connection, conversation_id, UPDATED, None)


def queue_failed_job(connection: Connection, job_id: str, code: str, message: str) -> None:
    """Have it told that a job was given up; nothing where the webhook is off."""
    if connection.execute(WEBHOOK_IS_ON).first() is None:
        return
    conversation_id, attempts = connection.execute(_JOB, {"of_job": job_id}).one()
    failure = JobFailure(conversation_id=conversation_id, job_id=job_id, attempt=attempts, code=code, message=message)
    _queue(connection, conversation_id, job_id, encode(failure))


def queue_failed_labels(connection: Connection, conversation_id: str, reason: str) -> None:
    """Have it told that a conversation's labels could not be worked out; nothing where the webhook is off."""
    failure = JobFailure(conversation_id=conversation_id, code=FailureCode.LABELS_FAILED, message=reason)
    _queue(connection, conversation_id, LABELS, encode(failure))


def _queue(connection: Connection, conversation_id: str, subject: str, payload: bytes | None) -> None:
    said = {"of_conversation": conversation_id, "subject": subject, "payload": payload, "now": time.time()}
    statement = _QUEUE_ON_SERVER if connection.dialect.name == SERVER_DIALECT else _QUEUE
    connection.execute(statement, {"delivery_id": secrets.token_hex(16), **said})
