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
    op.create_index("decisions_in", "person_decisions", ["conversation_id"])
    for name in ("untold", "gone"):
        op.add_column("omi_conversations", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE omi_conversations SET gone = EXISTS (SELECT 1 FROM tombstones "
        "WHERE tombstones.conversation_id = omi_conversations.conversation_id), untold = EXISTS (SELECT 1 FROM "
        "conversations WHERE conversations.conversation_id = omi_conversations.conversation_id "
        "AND updated_version > sent_version)"
    )
    for name in ("untold", "gone"):
        op.create_index(
            f"omi_conversations_{name}",
            "omi_conversations",
            ["conversation_id"],
            sqlite_where=sa.text(f"{name} = 1"),
            postgresql_where=sa.text(name),
        )
