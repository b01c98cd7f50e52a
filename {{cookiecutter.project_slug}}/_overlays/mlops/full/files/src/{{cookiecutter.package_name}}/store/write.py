"""Write the prediction log, many rows at once, and prune old ones."""

import math
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import NamedTuple

from sqlalchemy import and_, delete, exists, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from .database import Database
from .row import PredictionRow
from .tables import feedback, feedback_history, predictions

INSERT_ROWS = 512  # per statement; SQLite takes 32,766 values, PostgreSQL 65,535
PRUNE_ROWS = 250  # per transaction: others wait for milliseconds


class Pruned(NamedTuple):
    """How many rows were deleted, and how many inputs of rows that stay."""

    rows: int
    inputs: int


def insert_predictions(database: Database, rows: list[PredictionRow]) -> int:
    """Insert all rows in one transaction and return how many are new; existing ones stay."""
    new = start = 0
    with database.writing() as connection:
        while left := len(rows) - start:
            # Powers of two: databases cache prepared statements, so there should be few.
            count = min(INSERT_ROWS, 1 << left.bit_length() - 1)
            values = tuple(chain.from_iterable(rows[start : start + count]))
            new += connection.exec_driver_sql(_insert(database.dialect, count), values).rowcount
            start += count
    return new


@cache
def _insert(dialect: str, count: int) -> str:
    """Compile one statement for `count` rows.

    One per row would pass the GIL back and forth each time, which slows the event loop down, and
    SQLAlchemy's own way of inserting many costs more than the insert itself.
    """
    module, style = {"sqlite": (sqlite, "qmark"), "postgresql": (postgresql, "format")}[dialect]
    one = module.insert(predictions).inline().on_conflict_do_nothing()
    compiler = module.dialect(paramstyle=style)
    text = str(one.compile(dialect=compiler, column_keys=PredictionRow._fields))
    values = text[text.index("VALUES (") + len("VALUES ") : text.index(" ON CONFLICT")]
    return text.replace(values, ", ".join([values] * count))


def prune_log(database: Database, before: float, inputs_before: float) -> Iterator[Pruned]:
    """Delete rows and their feedback from before one time, and inputs from before another.

    Each step is one short transaction and yields what it did, so that the caller can do other work
    in between. Inputs with feedback stay as long as their row does: retraining needs them. Times
    are in seconds since 1970.
    """
    while count := _delete_rows(database, before):
        yield Pruned(count, 0)
    seen = (-math.inf, -1)  # time and id of the newest row looked at: no row is looked at twice
    while (step := _clear_inputs(database, inputs_before, seen)) is not None:
        seen, count = step
        yield Pruned(0, count)


def _delete_rows(database: Database, before: float) -> int:
    old = select(predictions.c.id, predictions.c.request_id).where(predictions.c.at < before)
    with database.writing() as connection:
        rows = connection.execute(old.order_by(predictions.c.at).limit(PRUNE_ROWS)).all()
        ids, requests = [row[0] for row in rows], {row[1] for row in rows}
        connection.execute(delete(predictions).where(predictions.c.id.in_(ids)))
        for table in (feedback, feedback_history):
            orphaned = ~exists().where(predictions.c.request_id == table.c.request_id)
            connection.execute(delete(table).where(table.c.request_id.in_(requests), orphaned))
    return len(rows)


def _clear_inputs(
    database: Database, before: float, seen: tuple[float, int]
) -> tuple[tuple[float, int], int] | None:
    """Clear inputs among the next rows after `seen`: the last one of them, and how many."""
    column = predictions.c
    later = or_(column.at > seen[0], and_(column.at == seen[0], column.id > seen[1]))
    query = select(column.id, column.at).where(column.at >= seen[0], later, column.at < before)
    with database.reading() as connection:
        rows = connection.execute(query.order_by(column.at, column.id).limit(PRUNE_ROWS)).all()
    if not rows:
        return None
    ids, unlabelled = (
        [row.id for row in rows],
        ~exists().where(feedback.c.request_id == column.request_id),
    )
    kept = update(predictions).where(column.id.in_(ids), column.input.is_not(None), unlabelled)
    with database.writing() as connection:
        count = connection.execute(kept.values(input=None)).rowcount
    return (rows[-1].at, rows[-1].id), count
