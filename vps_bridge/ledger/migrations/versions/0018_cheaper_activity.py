"""Two indexes without the time of the last activity: each event had to change them."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, column, condition in (
        ("conversations_open", "conversation_id", "final_at IS NULL"),
        ("conversations_unpacked", sa.text("coalesce(final_at, 0)"), "packed_at IS NULL"),
    ):
        where = sa.text(condition)
        op.drop_index(name, "conversations")
        op.create_index(name, "conversations", [column], sqlite_where=where, postgresql_where=where)
