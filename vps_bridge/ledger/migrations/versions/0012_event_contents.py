"""What an event said, as a digest: another event under the same id is refused and not taken for the first."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("events", "person_events"):
        op.add_column(table, sa.Column("content", sa.String(), nullable=True))
