"""A conversation made for one question is marked, so that a bridge that died before the answer deletes it later."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("conversations", sa.Column("throwaway", sa.Boolean(), nullable=False, server_default=sa.false()))
