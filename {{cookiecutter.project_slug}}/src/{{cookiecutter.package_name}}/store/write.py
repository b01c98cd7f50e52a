"""Writing the prediction log: many rows at once, and forgetting old ones."""

from functools import cache
from itertools import chain
from typing import NamedTuple

from sqlalchemy import delete, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite

from .database import Database
from .row import PredictionRow
from .tables import feedback, predictions

INSERT_ROWS = 512  # rows of a statement; SQLite takes 32,766 values, PostgreSQL 65,535
PRUNE_ROWS = 1000  # rows of one transaction that forgets, so that others need not wait long


class Pruned(NamedTuple):
    """What was forgotten: whole rows, and inputs of rows that stay."""

    rows: int
    inputs: int


def insert_predictions(database: Database, rows: list[PredictionRow]) -> int:
    """Write all rows in one transaction and return how many are new; those that are there already
    stay as they are."""
    new = start = 0
    with database.writing() as connection:
        while left := len(rows) - start:
            # Powers of two: databases keep what they prepared, and shall keep few of these.
            count = min(INSERT_ROWS, 1 << left.bit_length() - 1)
            values = tuple(chain.from_iterable(rows[start : start + count]))
            new += connection.exec_driver_sql(_insert(database.dialect, count), values).rowcount
            start += count
    return new


@cache
def _insert(dialect: str, count: int) -> str:
    """One statement for so many rows. A statement for each would hand Python's lock to and fro for
    each, which slows the event loop down; and SQLAlchemy's own way costs more than the writing."""
    made, style = {"sqlite": (sqlite, "qmark"), "postgresql": (postgresql, "format")}[dialect]
    one = made.insert(predictions).inline().on_conflict_do_nothing()
    text = str(
        one.compile(dialect=made.dialect(paramstyle=style), column_keys=PredictionRow._fields)
    )
    values = text[text.index("VALUES (") + len("VALUES ") : text.index(" ON CONFLICT")]
    return text.replace(values, ", ".join([values] * count))


def prune_log(database: Database, before: float, inputs_before: float) -> Pruned:
    """Delete rows and their feedback from before one time, and the inputs from before another.

    Inputs with feedback stay as long as their row does: they are what is learned from.
    """
    rows = inputs = 0
    while found := _delete(database, before):
        rows += found
    while found := _clear(database, inputs_before):
        inputs += found
    return Pruned(rows, inputs)


def _delete(database: Database, before: float) -> int:
    old = select(predictions.c.id, predictions.c.request_id).where(predictions.c.at < before)
    with database.writing() as connection:
        found = connection.execute(old.order_by(predictions.c.at).limit(PRUNE_ROWS)).all()
        numbers, requests = [row[0] for row in found], {row[1] for row in found}
        connection.execute(delete(predictions).where(predictions.c.id.in_(numbers)))
        another = exists().where(predictions.c.request_id == feedback.c.request_id)
        connection.execute(delete(feedback).where(feedback.c.request_id.in_(requests), ~another))
    return len(found)


def _clear(database: Database, before: float) -> int:
    labelled = exists().where(feedback.c.request_id == predictions.c.request_id)
    old = select(predictions.c.id).where(
        predictions.c.at < before, predictions.c.input.is_not(None), ~labelled
    )
    with database.writing() as connection:
        found = connection.scalars(old.limit(PRUNE_ROWS)).all()
        connection.execute(
            update(predictions).where(predictions.c.id.in_(found)).values(input=None)
        )
    return len(found)
