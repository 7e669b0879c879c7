"""A conversation whose labels cannot be worked out is set aside with the reason, so that it stops no other."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("conversations", sa.Column("label_tries", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("conversations", sa.Column("set_aside", sa.String(), nullable=True))
    set_aside = sa.text("set_aside IS NOT NULL")
    op.create_index("conversations_set_aside", "conversations", ["conversation_id"], sqlite_where=set_aside)
