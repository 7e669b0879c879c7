"""A deletion is noted first and finished afterwards: what is still to be erased has an index of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Deletions of before were finished where they were begun, or are asked for again by their backend.
    op.add_column("tombstones", sa.Column("finished", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_index("tombstones_unfinished", "tombstones", ["conversation_id"], sqlite_where=sa.text("finished = 0"))
