"""Create the tables predictions and feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "predictions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("model_version", sa.String(64), nullable=False),
        sa.Column("variant", sa.String(16), nullable=False),
        sa.Column("test", sa.String(200)),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.Column("items", sa.Integer, nullable=False),
        sa.Column("milliseconds", sa.Float(53), nullable=False),
        sa.Column("features", sa.Text, nullable=False),
        sa.Column("outcomes", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("input", sa.Text),
        sa.UniqueConstraint("request_id", "variant", name="predictions_request_variant"),
    )
    op.create_index("predictions_at", "predictions", ["at"])
    op.create_index("predictions_version_at", "predictions", ["model_version", "at"])
    tested = sa.text("test IS NOT NULL")
    op.create_index(
        "predictions_test", "predictions", ["test"], sqlite_where=tested, postgresql_where=tested
    )
    op.create_table(
        "feedback",
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("item", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("truth", sa.Text, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
    )
    op.create_index("feedback_at", "feedback", ["at"])


def downgrade() -> None:
    """Drop both tables with their rows."""
    op.drop_table("feedback")
    op.drop_table("predictions")
