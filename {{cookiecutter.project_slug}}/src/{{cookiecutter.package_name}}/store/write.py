"""Writing the prediction log: many rows at once, and forgetting old ones."""

from functools import cache
from typing import NamedTuple

from sqlalchemy import delete, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite

from .database import Database
from .row import Row
from .tables import feedback, predictions

BATCH = 1000  # rows of one transaction that forgets, so that others need not wait long


class Pruned(NamedTuple):
    """What was forgotten: whole rows, and inputs of rows that stay."""

    rows: int
    inputs: int


def write(database: Database, rows: list[Row]) -> int:
    """Write all rows in one transaction and return how many are new; those that are there already
    stay as they are."""
    if not rows:
        return 0
    with database.writing() as connection:
        return connection.exec_driver_sql(_insert(database.dialect), rows).rowcount


@cache
def _insert(dialect: str) -> str:
    """The statement, made once: SQLAlchemy's way there costs more than the writing itself."""
    made, style = {"sqlite": (sqlite, "qmark"), "postgresql": (postgresql, "format")}[dialect]
    statement = made.insert(predictions).inline().on_conflict_do_nothing()
    return str(statement.compile(dialect=made.dialect(paramstyle=style), column_keys=Row._fields))


def prune(database: Database, before: float, inputs_before: float) -> Pruned:
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
        found = connection.execute(old.order_by(predictions.c.at).limit(BATCH)).all()
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
        found = connection.scalars(old.limit(BATCH)).all()
        connection.execute(
            update(predictions).where(predictions.c.id.in_(found)).values(input=None)
        )
    return len(found)
