"""People: who they are, how they sound, what was said of them; whose each conversation is, and whom it enrols."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("conversations", sa.Column("owner", sa.String()))
    op.add_column("conversations", sa.Column("enrols", sa.String()))
    op.add_column("conversations", sa.Column("stripped", sa.Boolean(), nullable=False, server_default=sa.text("0")))
    op.create_index("conversations_owner", "conversations", ["owner"])
    op.add_column("corrections", sa.Column("teaches", sa.Boolean(), nullable=False, server_default=sa.text("1")))
    op.create_table(
        "people",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("person_id", sa.String(), primary_key=True),
        sa.Column("name", sa.String()),
        sa.Column("is_owner", sa.Boolean(), nullable=False, server_default=sa.text("0")),
        sa.Column("consent_date", sa.String()),
        sa.Column("revision", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "prints",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("person_id", sa.String(), primary_key=True),
        sa.Column("source", sa.String(), primary_key=True),
        sa.Column("conversation_id", sa.String(), primary_key=True),
        sa.Column("embedding_space", sa.String(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("clean_s", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_index("prints_conversation", "prints", ["conversation_id"])
    op.create_table(
        "person_events",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("person_id", sa.String(), primary_key=True),
        sa.Column("event_id", sa.String(), primary_key=True),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reason", sa.String()),
    )
    op.create_table(
        "person_decisions",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String()),
        sa.Column("similarity", sa.Double()),
    )
    op.create_index("person_decisions_person", "person_decisions", ["owner", "person_id"])
