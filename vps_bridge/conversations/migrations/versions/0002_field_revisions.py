"""An event may name only some fields of a segment: each field knows the revision of the event that set it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What an earlier version wrote, one event wrote as a whole: backend_revision is that of all its fields.
    op.add_column("segments", sa.Column("field_revisions", sa.JSON(none_as_null=True), nullable=True))
