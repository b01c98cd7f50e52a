"""Read the prediction log, for drift, online quality, A/B tests and retraining.

Limits take the newest; everything is returned in the order of the requests' time. Times are in
seconds since 1970.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, Select, func, select

from ..interfaces import Arrays, BaseContract
from .database import Database
from .tables import feedback, predictions

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
    version: str
    variant: str
    test: str | None
    unit: str
    at: float  # of the request
    score: float


class LabelledExample(NamedTuple):
    """A request's item with its ground truth, to learn from; both are JSON."""

    request_id: str
    item: int
    at: float  # of the request
    unit: str
    input: str
    truth: str


class VariantTraffic(NamedTuple):
    """The traffic of one variant in an A/B test."""

    variant: str
    requests: int
    items: int
    callers: int
    mean_ms: float
    p50_ms: float
    p99_ms: float


def read_window(
    database: Database,
    rows: int,
    variants: Sequence[str] = ANSWERING,
    version: str | None = None,
    since: float | None = None,
) -> Window:
    """Read the newest items of these variants, of one model version, from a time on."""
    columns = predictions.c["items"], predictions.c.features, predictions.c.outcomes
    query = select(*columns).where(*_filters(variants, version, since))
    query = query.order_by(predictions.c.at.desc(), predictions.c.id.desc()).limit(rows)
    texts, count = [], 0
    with database.reading() as connection:
        for items, features, outcomes in connection.execute(query):
            texts.append((features, outcomes))
            count += items
            if count >= rows:
                break
    texts.reverse()
    kept = min(count, rows)
    features, stats = (_join_arrays([row[side] for row in texts], kept) for side in (0, 1))
    return Window(features, stats, kept)


def read_scored(
    database: Database,
    contract: BaseContract,
    rows: int | None = None,
    test: str | None = None,
    variants: Sequence[str] | None = None,
    since: float | None = None,
) -> list[ScoredPrediction]:
    """Read predictions with their scores, of the newest `rows` of feedback; what `contract`
    refuses is left out."""
    names = ("model_version", "variant", "test", "unit", "at", "output")
    conditions = _filters(variants, None, since)
    if test is not None:
        conditions.append(predictions.c.test == test)
    query = _with_truth(*names).where(*conditions)
    if rows is not None:
        query = query.order_by(feedback.c.at.desc(), predictions.c.id.desc()).limit(rows)
    parse = lru_cache(8)(json.loads)  # one text holds the predictions for all items of a request
    scored: list[ScoredPrediction] = []
    with database.reading() as connection:
        records = connection.execute(query).all()
    for row in sorted(records, key=_by_time):
        try:
            score = contract.score_json(parse(row.output)[row.item], json.loads(row.truth))
        except (ValueError, IndexError):
            continue
        origin = row.model_version, row.variant, row.test, row.unit, row.at
        scored.append(ScoredPrediction(row.request_id, row.item, *origin, score))
    return scored


def read_labelled(database: Database, after: float = 0.0) -> list[LabelledExample]:
    """Read the items whose input is kept and whose ground truth came after a time."""
    query = _with_truth("unit", "at", "input").where(
        feedback.c.at > after,
        predictions.c.input.is_not(None),
        predictions.c.variant.in_(ANSWERING),
    )
    parse = lru_cache(8)(json.loads)
    examples: dict[tuple[str, int], LabelledExample] = {}
    with database.reading() as connection:
        records = connection.execute(query).all()
    for _, request_id, item, truth, unit, at, inputs in sorted(records, key=_by_time):
        try:
            text = json.dumps(parse(inputs)[item], ensure_ascii=False)
        except ValueError:  # a body with two keys `items` was kept as it came
            continue
        example = LabelledExample(request_id, item, at, unit, text, truth)
        examples.setdefault((request_id, item), example)  # both variants may have got one id
    return list(examples.values())


def read_traffic(database: Database, test: str) -> list[VariantTraffic]:
    """Sum up each variant's traffic in an A/B test."""
    column, ms = predictions.c, predictions.c.milliseconds
    of_test = column.test == test
    counts = select(
        column.variant,
        func.count(),
        func.sum(column["items"]),
        func.count(column.unit.distinct()),
        func.avg(ms),
    )
    query = counts.where(of_test).group_by(column.variant).order_by(column.variant)
    traffic = []
    with database.reading() as connection:
        for row in connection.execute(query).all():
            ordered = select(ms).where(of_test, column.variant == row[0]).order_by(ms).limit(1)
            ranks = [round(share * (row[1] - 1)) for share in (0.5, 0.99)]
            times = [connection.execute(ordered.offset(rank)).scalar() or 0.0 for rank in ranks]
            traffic.append(VariantTraffic(*row, *times))
    return traffic


def _filters(
    variants: Sequence[str] | None, version: str | None, since: float | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if variants is not None:
        conditions.append(predictions.c.variant.in_(variants))
    if version is not None:
        conditions.append(predictions.c.model_version == version)
    if since is not None:
        conditions.append(predictions.c.at >= since)
    return conditions


def _with_truth(*names: str) -> Select[*tuple[Any, ...]]:
    """Select id, request, item and truth, then the named columns of the prediction."""
    columns = [predictions.c[name] for name in names]
    truth = feedback.c.request_id, feedback.c.item, feedback.c.truth
    return select(predictions.c.id, *truth, *columns).join_from(
        feedback, predictions, feedback.c.request_id == predictions.c.request_id
    )


def _by_time(row: Any) -> Any:
    return row.at, row.id, row.item


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
