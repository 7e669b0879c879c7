"""The columns that statements select to make a record of a row."""

from __future__ import annotations

from dataclasses import fields

from sqlalchemy import func, select

from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.records import ChunkRecord, ConversationRecord, JobRecord
from vps_bridge.ledger.tables import ChunkRow, ConversationRow, JobRow, LeaseRow

# The columns of a record, in the order of its fields: a record is made of a row by place, in a third of the time that
# names take. Statements select these, and no object of the mapper is ever made.
CHUNK_COLUMNS = tuple(getattr(ChunkRow, item.name) for item in fields(ChunkRecord))
CONVERSATION_COLUMNS = (
    *(getattr(ConversationRow, item.name) for item in fields(ConversationRecord) if item.name != "embedding"),
    ConversationRow.embedding_model,
    ConversationRow.embedding_revision,
)
JOB_COLUMNS = tuple(getattr(JobRow, item.name) for item in fields(JobRecord) if item.name != "agent_id")
_IS_CURRENT = func.coalesce((JobRow.state == JobState.LEASED) & (JobRow.lease_id == LeaseRow.lease_id), False)
MAX_SPEAKERS = func.coalesce(ConversationRow.max_speakers, ConversationRow.num_speakers)
_MAX_SPEAKERS_OF_JOB = select(MAX_SPEAKERS).where(ConversationRow.conversation_id == JobRow.conversation_id)
LEASE_COLUMNS = (
    LeaseRow.lease_id,
    LeaseRow.job_id,
    JobRow.conversation_id,
    LeaseRow.agent_id,
    LeaseRow.instance_id,
    JobRow.audio_s,
    LeaseRow.lease_end,
    _IS_CURRENT.label("is_current"),
    JobRow.attempts,
    _MAX_SPEAKERS_OF_JOB.correlate(JobRow).scalar_subquery().label("max_speakers"),
)
"""Of a lease and its job, joined; in the order of the fields of `LeaseRecord`."""
