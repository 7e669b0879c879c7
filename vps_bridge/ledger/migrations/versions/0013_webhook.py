"""What the webhook's receiver has not confirmed yet."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhook_outbox",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("delivery_id", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("payload", sa.LargeBinary()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("last_error", sa.String()),
        sa.Column("tried_at", sa.Double()),
        sa.UniqueConstraint("conversation_id", "subject"),
        sqlite_autoincrement=True,  # a number is never used twice: what is sent is confirmed by it
    )
    op.create_index("webhook_outbox_order", "webhook_outbox", ["conversation_id", "number"])
