"""Whom a voiceprint names in each segment."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("segments", sa.Column("matched_person", sa.Text()))


def downgrade() -> None:
    op.drop_column("segments", "matched_person")
