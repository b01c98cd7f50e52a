"""The tables of the prediction log. `migrations/` makes them; a test holds both to each other."""

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

# One row for each request and variant. Texts called JSON are not of the databases' own JSON type:
# nothing asks about their insides, and text is written and read without a second look.
predictions = Table(
    "predictions",
    metadata,
    # SQLite counts up by itself only what is called INTEGER; that has 64 bits there.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("request_id", String(64), nullable=False),
    Column("at", Float(53), nullable=False),  # seconds since 1970, UTC
    Column("model_version", String(64), nullable=False),
    Column("variant", String(16), nullable=False),  # champion, challenger or shadow
    Column("test", String(200)),  # `Deployment.test` at that time
    Column("unit", String(16), nullable=False),  # hash of who asked
    Column("items", Integer, nullable=False),
    Column("milliseconds", Float(53), nullable=False),
    Column("features", Text, nullable=False),  # JSON: name -> a value for each item
    Column("outcomes", Text, nullable=False),  # JSON like features
    Column("output", Text, nullable=False),  # JSON: a prediction for each item
    Column("input", Text),  # JSON: the items, where they are kept
    UniqueConstraint("request_id", "variant", name="predictions_request_variant"),
    Index("predictions_at", "at"),
    Index("predictions_version_at", "model_version", "at"),
    # Most rows belong to no test: those are not in the index, which makes writing quicker.
    Index("predictions_test", "test", sqlite_where=TESTED, postgresql_where=TESTED),
)

feedback = Table(
    "feedback",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("item", Integer, primary_key=True, autoincrement=False),
    Column("truth", Text, nullable=False),  # JSON
    Column("at", Float(53), nullable=False),  # when it came to be known here
    Index("feedback_at", "at"),
)
