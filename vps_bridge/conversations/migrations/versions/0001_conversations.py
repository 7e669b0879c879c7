"""Conversations, their segments, and every write to them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("conversation_id", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "segments",
        sa.Column(
            "conversation_id",
            sa.Text,
            sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("segment_id", sa.Text, primary_key=True),
        sa.Column("backend_revision", sa.Integer, nullable=False),
        sa.Column("removed", sa.Boolean, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("start_s", sa.Float, nullable=False),
        sa.Column("end_s", sa.Float, nullable=False),
        sa.Column("speaker", sa.Text),
        sa.Column("original_speaker", sa.Text),
        sa.Column("written_version", sa.Integer),
        sa.Column("undone", sa.Boolean, nullable=False),
        sa.Column("is_user", sa.Boolean, nullable=False),
        sa.Column("person_id", sa.Text),
        sa.Column("label_source", sa.Text),
        sa.Column("words", sa.JSON(none_as_null=True)),
    )
    op.create_table(
        "writes",
        sa.Column(
            "conversation_id",
            sa.Text,
            sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("write_key", sa.Text, nullable=False),
        sa.Column("written_at_s", sa.Float, nullable=False),
    )
    op.create_table(
        "changes",
        sa.Column("conversation_id", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("segment_id", sa.Text, primary_key=True),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.ForeignKeyConstraint(
            ["conversation_id", "version"],
            ["writes.conversation_id", "writes.version"],
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    for table in ("changes", "writes", "segments", "conversations"):
        op.drop_table(table)
