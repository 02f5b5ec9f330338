"""The third schema: the queue for a machine."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "queue",
        sa.Column("owner_pid", sa.Integer(), nullable=False),
        sa.Column("owner_started", sa.String(length=60), nullable=False),
        sa.Column("owner_place", sa.String(length=200), nullable=False),
        sa.Column("machine", sa.String(length=200), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("deadline_at", sa.Float(), nullable=True),
        sa.Column("needs_s", sa.Float(), nullable=False),
        sa.Column("needs_at", sa.Float(), nullable=False),
        sa.Column("joined_at", sa.Float(), nullable=False),
        sa.Column("waited_s", sa.Float(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("working", sa.Boolean(), nullable=False),
        sa.Column("sign_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("owner_pid", "owner_started", "owner_place", name=op.f("pk_queue")),
    )
    op.create_index("ix_queue_machine", "queue", ["machine"], unique=False)
