"""The tables of the prediction log. `migrations/` creates them; a test compares the two.

Migrations only add, and what they add may be missing from a row: an older program beside a newer
schema goes on writing.
"""

import sqlalchemy as sa

metadata = sa.MetaData()
TESTED = sa.text("test IS NOT NULL")
NAMED = sa.text("client_id IS NOT NULL")

# One row for each request and variant. Texts called JSON are not of the databases' JSON type: no
# query looks inside, and text is written and read without being parsed.
predictions = sa.Table(
    "predictions",
    metadata,
    # SQLite autoincrements only what is called INTEGER; that has 64 bits there.
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("request_id", sa.String(64), nullable=False),  # the server's own
    sa.Column("at", sa.Float(53), nullable=False),  # seconds since 1970, UTC
    sa.Column("model_version", sa.String(64), nullable=False),
    sa.Column("variant", sa.String(16), nullable=False),  # champion, challenger or shadow
    sa.Column("test", sa.String(200)),  # `Deployment.test` at that time
    sa.Column("unit", sa.String(16), nullable=False),  # what the test randomises, hashed
    sa.Column("items", sa.Integer, nullable=False),
    sa.Column("milliseconds", sa.Float(53), nullable=False),
    sa.Column("features", sa.Text, nullable=False),  # JSON: name -> a value for each item
    sa.Column("outcomes", sa.Text, nullable=False),  # JSON: the contract's prediction_stats
    sa.Column("output", sa.Text, nullable=False),  # JSON: a prediction for each item
    sa.Column("input", sa.Text),  # JSON: the items; NULL where they are not kept
    sa.Column("client_id", sa.String(64)),  # the caller's x-request-id, which need not be unique
    sa.Column("asker", sa.String(16)),  # hash of the API key; empty without keys
    sa.Column("caller", sa.String(16)),  # hash of the caller, the same in all tests
    sa.Column("trace_id", sa.String(32)),  # of the header traceparent, or the server's own trace
    sa.UniqueConstraint("request_id", "variant", name="predictions_request_variant"),
    sa.Index("predictions_at", "at"),
    sa.Index("predictions_version_at", "model_version", "at"),
    # Most rows belong to no test: leaving them out of the index makes writing faster.
    sa.Index("predictions_test", "test", sqlite_where=TESTED, postgresql_where=TESTED),
    sa.Index("predictions_client", "client_id", sqlite_where=NAMED, postgresql_where=NAMED),
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("item", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("truth", sa.Text, nullable=False),  # JSON
    sa.Column("at", sa.Float(53), nullable=False),  # of arrival, seconds since 1970
    sa.Index("feedback_at", "at"),
)

# What feedback said before somebody changed it, the oldest first.
feedback_history = sa.Table(
    "feedback_history",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("item", sa.Integer, nullable=False),
    sa.Column("truth", sa.Text, nullable=False),  # JSON
    sa.Column("at", sa.Float(53), nullable=False),  # of its arrival
    sa.Column("replaced_at", sa.Float(53), nullable=False),
    sa.Column("replaced_by", sa.String(16), nullable=False),  # hash of the API key, or empty
    sa.Index("feedback_history_request", "request_id", "item"),
)
