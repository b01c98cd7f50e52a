"""Add ids and keys of callers, and the history of feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns that may be empty, and a table."""
    op.add_column("predictions", sa.Column("client_id", sa.String(64)))
    op.add_column("predictions", sa.Column("asker", sa.String(16)))
    op.add_column("predictions", sa.Column("caller", sa.String(16)))
    named = sa.text("client_id IS NOT NULL")
    op.create_index(
        "predictions_client",
        "predictions",
        ["client_id"],
        sqlite_where=named,
        postgresql_where=named,
    )
    op.create_table(
        "feedback_history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("truth", sa.Text, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("replaced_at", sa.Float(53), nullable=False),
        sa.Column("replaced_by", sa.String(16), nullable=False),
    )
    op.create_index("feedback_history_request", "feedback_history", ["request_id", "item"])


def downgrade() -> None:
    """Drop what was added, with what is in it."""
    op.drop_table("feedback_history")
    op.drop_index("predictions_client", "predictions")
    for name in ("client_id", "asker", "caller"):
        op.drop_column("predictions", name)
