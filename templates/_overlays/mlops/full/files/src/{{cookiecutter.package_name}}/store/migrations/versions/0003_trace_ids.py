"""Add the trace that a request belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a column that may be empty, without an index: a trace's span names the request's id."""
    op.add_column("predictions", sa.Column("trace_id", sa.String(32)))


def downgrade() -> None:
    """Drop the column, with what is in it."""
    op.drop_column("predictions", "trace_id")
