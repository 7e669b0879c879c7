"""OMI's conversations know whom OMI had by itself in its last report: said once more it is nothing new."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("omi_conversations", sa.Column("heard", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
