"""OMI's conversations know whom OMI was told for each segment, apart from whom OMI had there by itself."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("omi_conversations", sa.Column("assigned", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
