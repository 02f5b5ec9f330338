"""The second schema: the charges of imported bills."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of bills' charges."""
    op.create_table(
        "bill_lines",
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("line_key", sa.String(length=40), nullable=False),
        sa.Column("billed", sa.Text(), nullable=False),
        sa.Column("began", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=False),
        sa.Column("currency", sa.String(length=10), nullable=False),
        sa.Column("category", sa.String(length=20), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "line_key", name=op.f("pk_bill_lines")),
    )
