"""The pieces that a segment is cut into, and what a write changed about them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("segments", sa.Column("pieces", sa.JSON(none_as_null=True)))
    op.add_column("changes", sa.Column("pieces_before", sa.JSON(none_as_null=True)))
    op.add_column("changes", sa.Column("pieces_after", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    for column in ("pieces_before", "pieces_after"):
        op.drop_column("changes", column)
    op.drop_column("segments", "pieces")
