"""Read the prediction log, for drift, online quality, A/B tests and retraining.

Limits take the newest; where nothing else is said, rows come in the order of the requests' time.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, func, select

from ..arrays import Arrays
from ..interfaces import BaseContract
from .database import Database
from .tables import feedback, predictions

FETCHED_ROWS = 1000  # of a large result, at once
ANSWERING = ("champion", "challenger")  # the variants whose predictions callers got


class Window(NamedTuple):
    """The newest items for drift: arrays (rows,) of their features and prediction stats."""

    features: Arrays
    prediction_stats: Arrays
    rows: int


class ScoredPrediction(NamedTuple):
    """A prediction with the score that its feedback gives it."""

    request_id: str
    item: int
    at: float  # of the request, seconds since 1970
    version: str
    variant: str
    unit: str
    score: float


@dataclass(frozen=True)
class LabelledExample:
    """A request's item with its ground truth, both as parsed JSON, to learn from."""

    request_id: str
    index: int  # of the item in its request
    at: float  # of the request, seconds since 1970
    item: Any
    truth: Any
    caller: str = ""  # a hash, the same in all A/B tests; empty: unknown

    @property
    def key(self) -> tuple[str, int]:
        return self.request_id, self.index


class VariantTraffic(NamedTuple):
    """The traffic of one variant in an A/B test."""

    variant: str
    requests: int
    items: int
    callers: int
    p50_ms: float
    p99_ms: float


def read_window(
    database: Database, rows: int, variants: Sequence[str] = ANSWERING, version: str | None = None
) -> Window:
    """Read the newest items of these variants, and of one model version if it is given."""
    column = predictions.c
    query = select(column["items"], column.features, column.outcomes)
    query = query.where(column.variant.in_(variants))
    if version is not None:
        query = query.where(column.model_version == version)
    requests, count = [], 0
    with database.reading() as connection:
        newest = query.order_by(column.at.desc(), column.id.desc()).limit(rows)
        for items, *texts in connection.execute(newest):
            requests.append(texts)
            count += items
            if count >= rows:
                break
    count = min(count, rows)
    features, stats = (_join_arrays([row[i] for row in reversed(requests)], count) for i in (0, 1))
    return Window(features, stats, count)


def read_scored(
    database: Database, contract: BaseContract, rows: int | None = None, test: str | None = None
) -> Iterator[ScoredPrediction]:
    """Score predictions by the newest feedback, of one A/B test or all, in no order; skip what does
    not fit. A test may have millions: they are read as they are used."""
    conditions = [] if test is None else [predictions.c.test == test]
    names = ("model_version", "variant", "unit", "output")
    parse = lru_cache(8)(json.loads)  # one text holds the predictions for all items of a request
    for row in _read_feedback(database, names, conditions, rows):
        try:
            score = contract.score_json(parse(row.output)[row.item], json.loads(row.truth))
        except (ValueError, IndexError):
            continue
        model = row.model_version, row.variant
        yield ScoredPrediction(row.request_id, row.item, row.at, *model, row.unit, score)


def read_labelled(database: Database) -> list[LabelledExample]:
    """Read the items that have a ground truth and whose input is kept."""
    column = predictions.c
    conditions = [column.input.is_not(None), column.variant.in_(ANSWERING)]
    parse = lru_cache(8)(json.loads)
    examples: dict[tuple[str, int], LabelledExample] = {}
    rows = _read_feedback(database, ["input", "caller"], conditions)
    for row in sorted(rows, key=lambda row: (row.at, row.id, row.item)):
        try:
            item = parse(row.input)[row.item]
        except ValueError:  # a body with two keys `items` was kept as it came
            continue
        truth = json.loads(row.truth)
        example = LabelledExample(row.request_id, row.item, row.at, item, truth, row.caller or "")
        examples.setdefault(example.key, example)  # both variants may have got one id
    return list(examples.values())


def read_traffic(database: Database, test: str) -> list[VariantTraffic]:
    """Sum up each variant's traffic in an A/B test."""
    column, ms = predictions.c, predictions.c.milliseconds
    of_test = column.test == test
    callers = func.count(column.unit.distinct())
    counts = select(column.variant, func.count(), func.sum(column["items"]), callers)
    query = counts.where(of_test).group_by(column.variant).order_by(column.variant)
    traffic = []
    with database.reading() as connection:
        for row in connection.execute(query).all():
            ordered = select(ms).where(of_test, column.variant == row[0]).order_by(ms).limit(1)
            ranks = [round(share * (row[1] - 1)) for share in (0.5, 0.99)]
            times = [connection.execute(ordered.offset(rank)).scalar() or 0.0 for rank in ranks]
            traffic.append(VariantTraffic(*row, *times))
    return traffic


def _read_feedback(
    database: Database,
    names: Sequence[str],
    conditions: Sequence[ColumnElement[bool]],
    limit: int | None = None,
) -> Iterator[Any]:
    """Read feedback with the named columns of the predictions that it is about, in no order."""
    column = predictions.c
    labels = feedback.c.request_id, feedback.c.item, feedback.c.truth
    query = select(column.id, column.at, *labels, *(column[name] for name in names))
    query = query.join_from(feedback, predictions, feedback.c.request_id == column.request_id)
    query = query.where(*conditions)
    if limit is not None:
        query = query.order_by(feedback.c.at.desc(), column.id.desc()).limit(limit)
    with database.reading() as connection:
        yield from connection.execution_options(yield_per=FETCHED_ROWS).execute(query)


def _join_arrays(texts: list[str], rows: int) -> Arrays:
    """Join JSON texts (name -> values) to arrays of their last `rows` values."""
    columns: dict[str, list[Any]] = {}
    for text in texts:
        for name, values in json.loads(text).items():
            columns.setdefault(name, []).extend(values)
    arrays: Arrays = {}
    for name, values in columns.items():
        is_text = any(isinstance(value, str) for value in values[-rows:])
        arrays[name] = np.array(values[-rows:], str if is_text else np.float64)
    return arrays
