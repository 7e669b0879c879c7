"""Listing conversations, and seeing which have changed, without reading their updates."""

from alembic import op

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    columns = ["last_activity_at", "conversation_id", "dirty", "updated_version"]
    op.create_index("conversations_activity", "conversations", columns)
