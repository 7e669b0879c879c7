"""What a conversation's rows are packed into once nothing happens to it any more."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("conversations", sa.Column("packed_at", sa.Double()))
    op.create_table(
        "packed_conversations",
        sa.Column("conversation_id", sa.String(), primary_key=True),
        sa.Column("holds_voices", sa.Boolean(), nullable=False),
        sa.Column("people", sa.JSON(), nullable=False),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
    )
    op.create_index(
        "conversations_unpacked", "conversations", ["last_activity_at"], sqlite_where=sa.text("packed_at IS NULL")
    )
    op.execute("CREATE INDEX conversations_settled ON conversations (coalesce(final_at, last_activity_at))")
