"""What people corrected in a conversation, with what it was about when they said it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "corrections",
        sa.Column("conversation_id", sa.String(), primary_key=True),
        sa.Column("write", sa.Integer(), primary_key=True),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("said", sa.JSON(), nullable=False),
        sa.Column("anchors", sa.JSON(), nullable=False),
        sa.Column("voices_before", sa.JSON(), nullable=False),
        sa.Column("in_force", sa.Boolean(), nullable=False, server_default=sa.text("1")),
    )
