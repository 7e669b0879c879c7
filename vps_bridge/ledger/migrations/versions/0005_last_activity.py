"""When something last happened to a conversation is kept; its state is worked out when it is shown."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The latest of the times that are known of a conversation.
LATEST = """
UPDATE conversations SET last_activity_at = max(
    since_at,
    coalesce(final_at, 0),
    coalesce((SELECT max(accepted_at) FROM chunks WHERE chunks.conversation_id = conversations.conversation_id), 0),
    coalesce((
        SELECT max(max(created_at, coalesce(ended_at, 0))) FROM jobs
        WHERE jobs.conversation_id = conversations.conversation_id
    ), 0),
    coalesce((
        SELECT max(stored_at) FROM results JOIN jobs ON jobs.job_id = results.job_id
        WHERE jobs.conversation_id = conversations.conversation_id
    ), 0)
)
"""
# When an event came was not kept. One that came after a conversation was final made it final again later, so that
# time is known; one that is not final may have had an event a moment ago, and counts as quiet from now on.
MAYBE_ALIVE = """
UPDATE conversations SET last_activity_at = max(last_activity_at, :now) WHERE final_at IS NULL
AND EXISTS (SELECT 1 FROM events WHERE events.conversation_id = conversations.conversation_id)
"""


def upgrade() -> None:
    op.add_column("conversations", sa.Column("last_activity_at", sa.Double(), nullable=False, server_default="0"))
    op.execute(LATEST)
    op.execute(sa.text(MAYBE_ALIVE).bindparams(now=time.time()))
    op.drop_column("conversations", "state")
    op.drop_column("conversations", "since_at")
