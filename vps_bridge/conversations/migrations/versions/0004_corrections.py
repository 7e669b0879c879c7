"""What people correct: on the segments, in the history, and where each label came from before and after a write."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("segments", sa.Column("corrected", sa.Boolean(), nullable=False, server_default=sa.text("0")))
    op.add_column("segments", sa.Column("corrected_person", sa.Text()))
    op.add_column("writes", sa.Column("made_by", sa.Text()))
    op.add_column("writes", sa.Column("undoes", sa.Integer()))
    op.add_column("writes", sa.Column("corrections", sa.JSON(none_as_null=True)))
    op.add_column("changes", sa.Column("origin_before", sa.JSON(none_as_null=True)))
    op.add_column("changes", sa.Column("origin_after", sa.JSON(none_as_null=True)))
    # The key of an undo was `undo-<write>-<undo>`: it named the write that it undid.
    op.execute(
        "UPDATE writes SET undoes = CAST(substr(write_key, 6, instr(substr(write_key, 6), '-') - 1) AS INTEGER) "
        "WHERE kind = 'undo'"
    )


def downgrade() -> None:
    for column in ("origin_before", "origin_after"):
        op.drop_column("changes", column)
    for column in ("made_by", "undoes", "corrections"):
        op.drop_column("writes", column)
    for column in ("corrected", "corrected_person"):
        op.drop_column("segments", column)
