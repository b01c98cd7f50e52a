"""Reading the prediction log: what drift, live quality, A/B tests and retraining look at.

Limits take the newest; everything is returned in the order of the requests' time.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, Select, func, select

from ..interfaces import Arrays
from ..task.contract import Contract, GroundTruth, Prediction
from .database import Database
from .tables import feedback, predictions

ANSWERING = ("champion", "challenger")  # the variants whose answers callers got


class Window(NamedTuple):
    """What drift looks at, of the newest `rows` items: a value for each by name."""

    features: Arrays
    outcomes: Arrays
    rows: int


class ScoredPrediction(NamedTuple):
    """A prediction whose truth is known."""

    request_id: str
    item: int
    version: str
    variant: str
    test: str | None
    unit: str
    at: float  # of the request
    score: float


class LabelledExample(NamedTuple):
    """A request's item to learn from; the last two are JSON."""

    request_id: str
    item: int
    at: float  # of the request
    unit: str
    input: str
    truth: str


class VariantTraffic(NamedTuple):
    """What one variant had to do."""

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
    """The newest items of these variants, of one model version, from a time on."""
    columns = predictions.c["items"], predictions.c.features, predictions.c.outcomes
    wanted = select(*columns).where(*_filters(variants, version, since))
    wanted = wanted.order_by(predictions.c.at.desc(), predictions.c.id.desc()).limit(rows)
    found, count = [], 0
    with database.reading() as connection:
        for items, features, outcomes in connection.execute(wanted):
            found.append((features, outcomes))
            count += items
            if count >= rows:
                break
    found.reverse()
    kept = min(count, rows)
    features, outcomes = (_joined([row[side] for row in found], kept) for side in (0, 1))
    return Window(features, outcomes, kept)


def read_scored(
    database: Database,
    contract: Contract,
    rows: int | None = None,
    test: str | None = None,
    variants: Sequence[str] | None = None,
    since: float | None = None,
) -> list[ScoredPrediction]:
    """Predictions with the score that `contract` gives them, of the `rows` truths that came last;
    truths that it refuses are left out."""
    names = ("model_version", "variant", "test", "unit", "at", "output")
    conditions = _filters(variants, None, since)
    if test is not None:
        conditions.append(predictions.c.test == test)
    wanted = _with_truth(*names).where(*conditions)
    if rows is not None:
        wanted = wanted.order_by(feedback.c.at.desc(), predictions.c.id.desc()).limit(rows)
    parsed = lru_cache(8)(json.loads)  # one text holds the answers to all items of a request
    scores: list[ScoredPrediction] = []
    with database.reading() as connection:
        found = connection.execute(wanted).all()
    for row in sorted(found, key=_in_time):
        try:
            answer = Prediction.model_validate(parsed(row.output)[row.item])
            score = contract.score(answer, GroundTruth.model_validate_json(row.truth))
        except (ValueError, IndexError):
            continue
        whose = row.model_version, row.variant, row.test, row.unit, row.at
        scores.append(ScoredPrediction(row.request_id, row.item, *whose, score))
    return scores


def read_labelled(database: Database, after: float = 0.0) -> list[LabelledExample]:
    """Items of which input and truth are known, the truth since after a time, for retraining."""
    wanted = _with_truth("unit", "at", "input").where(
        feedback.c.at > after,
        predictions.c.input.is_not(None),
        predictions.c.variant.in_(ANSWERING),
    )
    parsed = lru_cache(8)(json.loads)
    known: dict[tuple[str, int], LabelledExample] = {}
    with database.reading() as connection:
        found = connection.execute(wanted).all()
    for _, request_id, item, truth, unit, at, inputs in sorted(found, key=_in_time):
        try:
            text = json.dumps(parsed(inputs)[item], ensure_ascii=False)
        except ValueError:  # a body that names its items twice is no list
            continue
        row = LabelledExample(request_id, item, at, unit, text, truth)
        known.setdefault((request_id, item), row)  # one id may have been sent to both variants
    return list(known.values())


def read_traffic(database: Database, test: str) -> list[VariantTraffic]:
    """What each variant had to do in a test."""
    column, ms = predictions.c, predictions.c.milliseconds
    own = column.test == test
    counts = select(
        column.variant,
        func.count(),
        func.sum(column["items"]),
        func.count(column.unit.distinct()),
        func.avg(ms),
    )
    found = []
    with database.reading() as connection:
        for row in connection.execute(
            counts.where(own).group_by(column.variant).order_by(column.variant)
        ).all():
            ordered = select(ms).where(own, column.variant == row[0]).order_by(ms).limit(1)
            ranks = [round(share * (row[1] - 1)) for share in (0.5, 0.99)]
            times = [connection.execute(ordered.offset(rank)).scalar() or 0.0 for rank in ranks]
            found.append(VariantTraffic(*row, *times))
    return found


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
    """Id, request, item and truth, then the named columns of the prediction."""
    columns = [predictions.c[name] for name in names]
    truth = feedback.c.request_id, feedback.c.item, feedback.c.truth
    return select(predictions.c.id, *truth, *columns).join_from(
        feedback, predictions, feedback.c.request_id == predictions.c.request_id
    )


def _in_time(row: Any) -> Any:
    return row.at, row.id, row.item


def _joined(texts: list[str], rows: int) -> Arrays:
    """JSON texts (name -> values) as arrays of their last `rows` values."""
    values: dict[str, list[Any]] = {}
    for text in texts:
        for name, some in json.loads(text).items():
            values.setdefault(name, []).extend(some)
    return {name: _array(some[-rows:]) for name, some in values.items()}


def _array(values: list[Any]) -> np.ndarray:
    words = any(isinstance(value, str) for value in values)
    return np.array(values, str if words else np.float64)
