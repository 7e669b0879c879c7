"""Listing conversations, and seeing which have changed, without reading their updates; where their audio lies."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("conversations", sa.Column("audio_places", sa.JSON(), nullable=True))
    columns = ["last_activity_at", "conversation_id", "dirty", "updated_version"]
    op.create_index("conversations_activity", "conversations", columns)
