"""What turned out to be right about logged predictions."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from ..task.contract import GroundTruth, Prediction
from .database import Database
from .feedback_schema import Feedback
from .tables import feedback, predictions

MAX_NAMED_REQUESTS = 5  # of unknown requests in a message
INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

Key = tuple[str, int]  # request, item
Score = Callable[[Prediction, GroundTruth], float]


class FeedbackCounts(NamedTuple):
    """How many truths are new, replaced another one, or were there already."""

    new: int
    changed: int
    same: int
    by_model: Counter[tuple[str, str]]  # the new ones by version and variant that answered


class UnknownRequest(LookupError):
    """Some feedback is about what is not in the log; `indices` are the places in the list."""

    def __init__(self, indices: list[int], reasons: list[str]) -> None:
        more = (
            f" and {len(reasons) - MAX_NAMED_REQUESTS} more"
            if len(reasons) > MAX_NAMED_REQUESTS
            else ""
        )
        super().__init__("; ".join(reasons[:MAX_NAMED_REQUESTS]) + more)
        self.indices = indices


class InvalidGroundTruth(ValueError):
    """The truth at `index` of the list cannot be true of what was answered."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def record_feedback(
    database: Database, feedbacks: Sequence[Feedback], score: Score
) -> FeedbackCounts:
    """Write truths into the log, all or none; the same ones again change nothing.

    Raises UnknownRequest, or BadTruth where `score` of the contract refuses one.
    """
    with database.writing() as connection:
        requests = {one.request_id for one in feedbacks}
        answers = _answers(connection, requests)
        _check_known(feedbacks, answers)
        for index, one in enumerate(feedbacks):
            _check_truth(index, one, answers[one.request_id], score)
        known = _truths(connection, requests)
        texts = [one.truth.model_dump_json() for one in feedbacks]
        kinds, altered = [], dict[Key, str]()
        for one, text in zip(feedbacks, texts, strict=True):
            key = one.request_id, one.item
            kinds.append("same" if known.get(key) == text else "changed" if key in known else "new")
            if kinds[-1] != "same":
                known[key] = altered[key] = text
        _write(connection, altered)
    by_model = Counter(
        names
        for one, kind in zip(feedbacks, kinds, strict=True)
        for names in answers[one.request_id].outputs
        if kind == "new"
    )
    return FeedbackCounts(kinds.count("new"), kinds.count("changed"), kinds.count("same"), by_model)


class _Answer(NamedTuple):
    items: int
    outputs: dict[tuple[str, str], list[Any]]  # of each version and variant


def _answers(connection: Connection, requests: set[str]) -> dict[str, _Answer]:
    column = predictions.c
    columns = (
        column.request_id,
        column["items"],
        column.model_version,
        column.variant,
        column.output,
    )
    wanted = select(*columns).where(column.request_id.in_(requests)).order_by(column.id)
    found: dict[str, _Answer] = {}
    for request_id, items, version, variant, output in connection.execute(wanted):
        answer = found.setdefault(request_id, _Answer(items, {}))
        answer.outputs[version, variant] = json.loads(output)
    return found


def _check_known(feedbacks: Sequence[Feedback], answers: dict[str, _Answer]) -> None:
    places: dict[str, int] = {}
    for index, one in enumerate(feedbacks):
        answer = answers.get(one.request_id)
        if answer is None:
            places.setdefault(f"{one.request_id!r} is no request of the log", index)
        elif one.item >= answer.items:
            count = f"{answer.items} item{'s' if answer.items > 1 else ''}"
            places.setdefault(f"{one.request_id!r} had {count}, there is no {one.item}", index)
    if places:
        raise UnknownRequest(list(places.values()), list(places))


def _check_truth(index: int, one: Feedback, answer: _Answer, score: Score) -> None:
    try:
        for output in answer.outputs.values():
            score(Prediction.model_validate(output[one.item]), one.truth)
    except (ValueError, IndexError) as error:
        raise InvalidGroundTruth(index, " ".join(str(error).split())) from None


def _truths(connection: Connection, requests: set[str]) -> dict[Key, str]:
    columns = feedback.c.request_id, feedback.c.item, feedback.c.truth
    rows = connection.execute(select(*columns).where(feedback.c.request_id.in_(requests)))
    return {(request_id, item): truth for request_id, item, truth in rows}


def _write(connection: Connection, altered: dict[Key, str]) -> None:
    if not altered:
        return
    statement = INSERT[connection.dialect.name](feedback)
    statement = statement.on_conflict_do_update(
        index_elements=[feedback.c.request_id, feedback.c.item],
        set_={"truth": statement.excluded.truth, "at": statement.excluded.at},
    )
    now = time.time()
    rows = [  # in one order, so that two who write the same do not wait for each other for ever
        {"request_id": request_id, "item": item, "truth": truth, "at": now}
        for (request_id, item), truth in sorted(altered.items())
    ]
    connection.execute(statement, rows)
