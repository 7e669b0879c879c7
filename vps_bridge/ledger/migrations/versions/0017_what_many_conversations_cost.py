"""Indexes for what was asked of all conversations from end to end: its cost grew with the years."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    partial = {"conversations_enrolments": ("conversation_id", "enrols IS NOT NULL")}
    partial["conversations_open"] = ("last_activity_at", "final_at IS NULL")
    for name, (column, condition) in partial.items():
        where = sa.text(condition)
        op.create_index(name, "conversations", [column], sqlite_where=where, postgresql_where=where)
    op.create_index(
        "conversations_temporary",
        "conversations",
        ["last_activity_at"],
        sqlite_where=sa.text("throwaway = 1"),
        postgresql_where=sa.text("throwaway"),
    )
    op.drop_index("jobs_state", "jobs")
    op.create_index("jobs_state", "jobs", ["state", "number"])
    op.create_index("person_decisions_conversation", "person_decisions", ["conversation_id"])
