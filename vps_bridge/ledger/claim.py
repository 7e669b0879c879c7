"""Claiming a job on a server: one statement that several bridges may run at once, and one of them gets the job."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Connection,
    Double,
    Select,
    String,
    and_,
    bindparam,
    insert,
    literal,
    or_,
    select,
    update,
)

from vps_bridge.ledger.columns import MAX_SPEAKERS
from vps_bridge.ledger.job_events import OF_JOB, allows
from vps_bridge.ledger.job_states import JobEvent, state_after
from vps_bridge.ledger.records import LeaseRecord
from vps_bridge.ledger.tables import ConversationRow, JobEventRow, JobRow, LeaseRow

_LEASE = bindparam("by_lease", type_=String)
_AGENT, _INSTANCE = bindparam("by_agent", type_=String), bindparam("by_instance", type_=String)
_NOW = bindparam("now", type_=Double)
_MODEL, _REVISION = ConversationRow.embedding_model, ConversationRow.embedding_revision
_BY_MODEL, _BY_REVISION = bindparam("by_model", type_=String), bindparam("by_revision", type_=String)


def _select_claim() -> Select[Any]:
    """Return the statement: it finds the job where it waits and nobody else has it in hand, and does all the rest."""
    fits = or_(and_(_MODEL.is_(None), _REVISION.is_(None)), and_(_MODEL == _BY_MODEL, _REVISION == _BY_REVISION))
    found = (
        select(
            JobRow.job_id, JobRow.conversation_id, JobRow.audio_s, JobRow.attempts, MAX_SPEAKERS.label("max_speakers")
        )
        .join(ConversationRow, ConversationRow.conversation_id == JobRow.conversation_id)
        .where(JobRow.job_id == OF_JOB, allows(JobEvent.GRANTED), fits)
        .with_for_update(of=[JobRow, ConversationRow], skip_locked=True)
        .cte("found")
    )
    moved = (
        update(JobRow)
        .where(JobRow.job_id == found.c.job_id)
        .values(state=state_after(JobEvent.GRANTED), lease_id=_LEASE)
        .returning(JobRow.job_id)
        .cte("moved")
    )
    pinned = (
        update(ConversationRow)
        .where(ConversationRow.conversation_id == found.c.conversation_id, _MODEL.is_(None))
        .values(embedding_model=_BY_MODEL, embedding_revision=_BY_REVISION)
        .returning(ConversationRow.conversation_id)
        .cte("pinned")
    )
    holder = ("lease_id", "job_id", "agent_id", "instance_id", "granted_at")
    leased = (
        insert(LeaseRow)
        .from_select(holder, select(_LEASE, found.c.job_id, _AGENT, _INSTANCE, _NOW))
        .returning(LeaseRow.lease_id)
        .cte("leased")
    )
    event = select(found.c.job_id, _NOW, literal(str(JobEvent.GRANTED)), _AGENT, _LEASE)
    noted = (
        insert(JobEventRow)
        .from_select(("job_id", "at", "event", "by", "lease_id"), event)
        .returning(JobEventRow.number)
        .cte("noted")
    )
    told = select(found.c.conversation_id, found.c.audio_s, found.c.attempts, found.c.max_speakers)
    return told.add_cte(moved, pinned, leased, noted)


_CLAIM = _select_claim()


def claim(connection: Connection, holder: Mapping[str, str], embedding: tuple[str, str]) -> LeaseRecord | None:
    """Lease a waiting job; None where it does not wait, another has it in hand, or its conversation's model differs.

    `holder` names the lease, the job, and the agent with its instance.
    """
    model, revision = embedding
    about = {
        "of_job": holder["job_id"],
        "by_lease": holder["lease_id"],
        "by_agent": holder["agent_id"],
        "by_instance": holder["instance_id"],
        "by_model": model,
        "by_revision": revision,
        "now": time.time(),
    }
    row = connection.execute(_CLAIM, about).first()
    if row is None:
        return None
    conversation_id, audio_s, attempts, max_speakers = row
    facts = {"audio_s": audio_s, "attempts": attempts, "max_speakers": max_speakers}
    who = (holder["lease_id"], holder["job_id"], conversation_id, holder["agent_id"], holder["instance_id"])
    return LeaseRecord(*who, **facts, is_current=True)
