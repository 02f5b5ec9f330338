"""The fourth schema: a place in the queue for a cluster besides the machine."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("queue", sa.Column("cluster", sa.String(length=200), nullable=True))
    op.create_index("ix_queue_cluster", "queue", ["cluster"], unique=False)
