"""The tables of the prediction log. `migrations/` creates them; a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()
TESTED = text("test IS NOT NULL")

# One row for each request and variant. Texts called JSON are not of the databases' JSON type: no
# query looks inside, and text is written and read without being parsed.
predictions = Table(
    "predictions",
    metadata,
    # SQLite autoincrements only what is called INTEGER; that has 64 bits there.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("request_id", String(64), nullable=False),
    Column("at", Float(53), nullable=False),  # seconds since 1970, UTC
    Column("model_version", String(64), nullable=False),
    Column("variant", String(16), nullable=False),  # champion, challenger or shadow
    Column("test", String(200)),  # `Deployment.test` at that time
    Column("unit", String(16), nullable=False),  # hash of the caller
    Column("items", Integer, nullable=False),
    Column("milliseconds", Float(53), nullable=False),
    Column("features", Text, nullable=False),  # JSON: name -> a value for each item
    Column("outcomes", Text, nullable=False),  # JSON: the contract's prediction_stats
    Column("output", Text, nullable=False),  # JSON: a prediction for each item
    Column("input", Text),  # JSON: the items; NULL where they are not kept
    UniqueConstraint("request_id", "variant", name="predictions_request_variant"),
    Index("predictions_at", "at"),
    Index("predictions_version_at", "model_version", "at"),
    # Most rows belong to no test: leaving them out of the index makes writing faster.
    Index("predictions_test", "test", sqlite_where=TESTED, postgresql_where=TESTED),
)

feedback = Table(
    "feedback",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("item", Integer, primary_key=True, autoincrement=False),
    Column("truth", Text, nullable=False),  # JSON
    Column("at", Float(53), nullable=False),  # of arrival, seconds since 1970
    Index("feedback_at", "at"),
)
