"""Whether the length of a chunk or a job was measured, or is an estimate until an agent has decoded it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, name in (("chunks", "duration_estimated"), ("jobs", "audio_estimated")):
        op.add_column(table, sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.text("0")))
