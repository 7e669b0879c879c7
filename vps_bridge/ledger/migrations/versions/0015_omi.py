"""Conversations that OMI's webhooks reported, and how far a chunk's captured_at may be off."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("chunks", sa.Column("captured_error_s", sa.Double(), nullable=False, server_default=sa.text("0")))
    op.create_table(
        "omi_conversations",
        sa.Column("conversation_id", sa.String(), primary_key=True),
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=False),
        sa.Column("posts", sa.Integer(), nullable=False),
        sa.Column("body_sha256", sa.String(), nullable=False),
        sa.Column("waits", sa.Boolean(), nullable=False),
        sa.Column("sent_version", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("sent_labels", sa.JSON(), nullable=False),
    )
    op.create_index("omi_conversations_uid", "omi_conversations", ["uid", "started_at"])
    waiting = sa.text("waits = 1")
    op.create_index("omi_conversations_waiting", "omi_conversations", ["conversation_id"], sqlite_where=waiting)
