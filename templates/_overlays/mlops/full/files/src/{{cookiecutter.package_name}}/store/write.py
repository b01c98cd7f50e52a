"""Write the prediction log, many rows at once, and prune old ones."""

import math
import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import and_, delete, exists, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from .database import Database
from .tables import feedback, feedback_history, predictions

INSERT_ROWS = 512  # per statement; SQLite takes 32,766 values, PostgreSQL 65,535
PRUNE_ROWS = 50, 250  # per transaction, at least and at most
PRUNE_SECONDS = 0.02  # per transaction, about: others wait meanwhile


class PredictionRow(NamedTuple):
    """A row of the table `predictions`; the columns are explained in `tables.py`."""

    request_id: str
    at: float
    model_version: str
    variant: str
    test: str | None
    unit: str
    items: int
    milliseconds: float
    features: str
    outcomes: str
    output: str
    input: str | None
    client_id: str | None = None
    asker: str = ""
    caller: str | None = None
    trace_id: str | None = None


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


def prune_log(
    database: Database, before: float, inputs_before: float, inputs_after: float = -math.inf
) -> Iterator[Pruned]:
    """Delete rows and their feedback from before one time, and inputs from before another.

    Each step is one short transaction and yields what it did, so that the caller can do other work
    in between; it has fewer rows where a row takes long. Inputs with feedback stay as long as their
    row does: retraining needs them. Of the others, those up to `inputs_after` are cleared already.
    Times are in seconds since 1970.
    """
    least, size = PRUNE_ROWS
    for change, end, seen in (
        (_delete_rows, before, (-math.inf, -1)),
        (_clear_inputs, inputs_before, (inputs_after, -1)),
    ):
        # By time and id of the newest row so far: no row is looked at twice.
        while rows := _next_rows(database, end, seen, size):
            started = time.monotonic()
            done = change(database, rows)
            seconds = time.monotonic() - started
            fitting = round(size * PRUNE_SECONDS / max(seconds, 1e-6))
            size = min(max(fitting, size // 2, least), 2 * size, PRUNE_ROWS[1])
            seen = rows[-1].at, rows[-1].id
            yield done


def _next_rows(
    database: Database, end: float, seen: tuple[float, int], count: int
) -> Sequence[Any]:
    """Read the next rows after `seen` and before `end`, and with them what deleting one needs: the
    transaction that writes should not wait for the disk."""
    c = predictions.c
    later = or_(c.at > seen[0], and_(c.at == seen[0], c.id > seen[1]))
    query = select(c.id, c.at, c.request_id, c.input.is_not(None).label("kept"))
    query = query.where(c.at >= seen[0], later, c.at < end)
    with database.reading() as connection:
        return connection.execute(query.order_by(c.at, c.id).limit(count)).all()


def _delete_rows(database: Database, rows: Sequence[Any]) -> Pruned:
    requests = {row.request_id for row in rows}
    with database.writing() as connection:
        chosen = predictions.c.id.in_([row.id for row in rows])
        count = connection.execute(delete(predictions).where(chosen)).rowcount
        for table in (feedback, feedback_history):
            orphaned = ~exists().where(predictions.c.request_id == table.c.request_id)
            connection.execute(delete(table).where(table.c.request_id.in_(requests), orphaned))
    return Pruned(count, 0)


def _clear_inputs(database: Database, rows: Sequence[Any]) -> Pruned:
    if not (ids := [row.id for row in rows if row.kept]):
        return Pruned(0, 0)
    unlabelled = ~exists().where(feedback.c.request_id == predictions.c.request_id)
    cleared = update(predictions).where(predictions.c.id.in_(ids), unlabelled).values(input=None)
    with database.writing() as connection:
        return Pruned(0, connection.execute(cleared).rowcount)
