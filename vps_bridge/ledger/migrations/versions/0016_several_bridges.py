"""Several bridges on one ledger: which are live, what was erased from it, and which agent alone may have a test."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bridges",
        sa.Column("bridge_id", sa.String(), primary_key=True),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("live_until", sa.Double(), nullable=False),
        sa.Column("places", sa.JSON(), nullable=False),
    )
    large = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "erasures",
        sa.Column("number", large, sa.Identity(), primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
    )
    op.add_column("conversations", sa.Column("only_agent", sa.String(), nullable=True))
