"""The ledger's first tables.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.Column("first_seen_at", sa.Double(), nullable=False),
        sa.Column("last_heartbeat", sa.JSON(), nullable=True),
        sa.Column("last_seen_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("agent_id"),
    )
    op.create_table(
        "chunks",
        sa.Column("arrival", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("chunk_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=True),
        sa.Column("captured_at_s", sa.Double(), nullable=True),
        sa.Column("encoding", sa.String(), nullable=False),
        sa.Column("sample_rate", sa.Integer(), nullable=True),
        sa.Column("channels", sa.Integer(), nullable=True),
        sa.Column("duration_s", sa.Double(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("spool_name", sa.String(), nullable=True),
        sa.Column("accepted_at", sa.Double(), nullable=False),
        sa.Column("covered", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("arrival"),
        sa.UniqueConstraint("conversation_id", "chunk_id"),
    )
    op.create_index(
        "chunks_uncovered", "chunks", ["conversation_id", "accepted_at"], sqlite_where=sa.text("covered = 0")
    )
    op.create_index(
        "chunks_spooled", "chunks", ["accepted_at", "bytes"], sqlite_where=sa.text("spool_name IS NOT NULL")
    )
    op.create_table(
        "conversations",
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("since_at", sa.Double(), nullable=False),
        sa.Column("started_at_s", sa.Double(), nullable=True),
        sa.Column("language", sa.String(), nullable=True),
        sa.Column("started_revision", sa.Integer(), nullable=False),
        sa.Column("min_speakers", sa.Integer(), nullable=True),
        sa.Column("max_speakers", sa.Integer(), nullable=True),
        sa.Column("num_speakers", sa.Integer(), nullable=True),
        sa.Column("completed", sa.Boolean(), nullable=False),
        sa.Column("completed_revision", sa.Integer(), nullable=False),
        sa.Column("completed_chunks", sa.Integer(), nullable=True),
        sa.Column("last_audio_at_s", sa.Double(), nullable=True),
        sa.Column("embedding_model", sa.String(), nullable=True),
        sa.Column("embedding_revision", sa.String(), nullable=True),
        sa.Column("voices", sa.JSON(), nullable=False),
        sa.Column("dirty", sa.Integer(), nullable=False),
        sa.Column("write_key", sa.String(), nullable=True),
        sa.Column("updated_version", sa.Integer(), nullable=False),
        sa.Column("applied_version", sa.Integer(), nullable=False),
        sa.Column("updated_payload", sa.LargeBinary(), nullable=True),
        sa.Column("final_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("conversation_id"),
    )
    op.create_index("conversations_dirty", "conversations", ["conversation_id"], sqlite_where=sa.text("dirty > 0"))
    op.create_index(
        "conversations_open_ended",
        "conversations",
        ["conversation_id"],
        sqlite_where=sa.text("completed = 1 AND final_at IS NULL"),
    )
    op.create_index(
        "conversations_unapplied",
        "conversations",
        ["conversation_id", "updated_version"],
        sqlite_where=sa.text("applied_version < updated_version"),
    )
    op.create_table(
        "events",
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("conversation_id", "event_id"),
    )
    op.create_table(
        "jobs",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("audio_s", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=True),
        sa.Column("failure_code", sa.String(), nullable=True),
        sa.Column("failure_message", sa.String(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("job_id"),
    )
    op.create_index("jobs_conversation", "jobs", ["conversation_id"], unique=False)
    op.create_index("jobs_state", "jobs", ["state"], unique=False)
    op.create_index("jobs_busy", "jobs", ["conversation_id"], sqlite_where=sa.text("state IN ('ready', 'leased')"))
    op.create_table(
        "meta",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "tombstones",
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("conversation_id"),
    )
    op.create_table(
        "job_chunks",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("arrival", sa.Integer(), nullable=False),
        sa.Column("start_s", sa.Double(), nullable=True),
        sa.Column("fresh", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "position"),
    )
    op.create_index("job_chunks_arrival", "job_chunks", ["arrival"], unique=False)
    op.create_table(
        "leases",
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("granted_at", sa.Double(), nullable=False),
        sa.Column("ended_reason", sa.String(), nullable=True),
        sa.Column("may_return", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("lease_id"),
    )
    op.create_index("leases_job", "leases", ["job_id"], unique=False)
    op.create_table(
        "results",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id"),
    )
