"""What happens to a job is kept; why a lease ended is one of a list instead of a sentence."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The sentences of the versions before, and what each is called now.
LEASE_ENDS = {
    "over the absolute limit": "over_limit",
    "agent is stale": "agent_stale",
    "agent stopped without the job": "agent_stopped",
    "agent is offline beyond the grace": "agent_offline",
    "agent drains without the job": "agent_drains",
    "agent is not allowed any more": "agent_denied",
    "agent started anew without the job": "agent_died",
    "agent started anew, and had not said that it took the job": "never_taken",
    "cancelled by an operator": "job_cancelled",
    "an operator purged the audio before it was diarized: publish it again under a new chunk_id": "audio_purged",
}


def upgrade() -> None:
    op.create_table(
        "job_events",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column("message", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("job_events_job", "job_events", ["job_id"], unique=False)
    op.add_column("leases", sa.Column("lease_end", sa.String(), nullable=True))
    leases = sa.table("leases", sa.column("lease_end"), sa.column("ended_reason"), sa.column("may_return"))
    # What is no sentence of ours is the code of a failure.
    named = sa.case(LEASE_ENDS, value=leases.c.ended_reason, else_="attempt_failed")
    op.execute(leases.update().where(leases.c.ended_reason.is_not(None)).values(lease_end=named))
    op.drop_column("leases", "ended_reason")
    op.drop_column("leases", "may_return")
