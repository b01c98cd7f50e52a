"""Record the ground truth of logged predictions."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from .database import Database
from .feedback_schema import Feedback
from .tables import feedback, predictions

MAX_NAMED_REQUESTS = 5  # of unknown requests in a message
INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

Key = tuple[str, int]  # request, item
Score = Callable[[Any, Any], float]  # of a prediction's JSON and its ground truth


class FeedbackCounts(NamedTuple):
    """How much feedback is new, replaced other feedback, or was there already."""

    new: int
    changed: int
    same: int
    by_model: Counter[tuple[str, str]]  # the new ones by model version and variant


class UnknownRequest(LookupError):
    """Some feedback is about requests that are not in the log; `indices` are its places."""

    def __init__(self, indices: list[int], reasons: list[str]) -> None:
        more = len(reasons) - MAX_NAMED_REQUESTS
        named = "; ".join(reasons[:MAX_NAMED_REQUESTS])
        super().__init__(f"{named} and {more} more" if more > 0 else named)
        self.indices = indices


class InvalidGroundTruth(ValueError):
    """The ground truth at `index` does not fit what was predicted."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class _LoggedRequest(NamedTuple):
    items: int
    outputs: dict[tuple[str, str], list[Any]]  # predictions by model version and variant


def record_feedback(
    database: Database, feedbacks: Sequence[Feedback[Any]], score: Score
) -> FeedbackCounts:
    """Write feedback into the log, all or none; the same again changes nothing.

    `score` is the contract's `score_json`. UnknownRequest for what is not in the log,
    InvalidGroundTruth where `score` raises ValueError.
    """
    names = {one.request_id for one in feedbacks}
    with database.writing() as connection:
        # 1. Look the requests up.
        column = predictions.c
        logged = select(
            column.request_id,
            column["items"],
            column.model_version,
            column.variant,
            column.output,
        ).where(column.request_id.in_(names))
        requests: dict[str, _LoggedRequest] = {}
        for request_id, items, *model, output in connection.execute(logged.order_by(column.id)):
            request = requests.setdefault(request_id, _LoggedRequest(items, {}))
            request.outputs[model[0], model[1]] = json.loads(output)
        # 2. Refuse what does not fit.
        _check_requests(feedbacks, requests)
        for index, one in enumerate(feedbacks):
            try:
                for output in requests[one.request_id].outputs.values():
                    score(output[one.item], one.truth)
            except (ValueError, IndexError) as error:
                raise InvalidGroundTruth(index, " ".join(str(error).split())) from None
        # 3. Compare with what is known.
        recorded = select(feedback.c.request_id, feedback.c.item, feedback.c.truth)
        rows = connection.execute(recorded.where(feedback.c.request_id.in_(names)))
        known: dict[Key, str] = {(request_id, item): truth for request_id, item, truth in rows}
        kinds, altered = [], dict[Key, str]()
        for one in feedbacks:
            key, text = (one.request_id, one.item), one.truth.model_dump_json()
            kinds.append("same" if known.get(key) == text else "changed" if key in known else "new")
            if kinds[-1] != "same":
                known[key] = altered[key] = text
        # 4. Write, always in the same order: two who write the same rows must not deadlock.
        if altered:
            insert = INSERT[database.dialect](feedback)
            upsert = insert.on_conflict_do_update(
                index_elements=[feedback.c.request_id, feedback.c.item],
                set_={"truth": insert.excluded.truth, "at": insert.excluded.at},
            )
            now = time.time()
            values = [
                {"request_id": request_id, "item": item, "truth": truth, "at": now}
                for (request_id, item), truth in sorted(altered.items())
            ]
            connection.execute(upsert, values)
    by_model = Counter(
        model
        for one, kind in zip(feedbacks, kinds, strict=True)
        for model in requests[one.request_id].outputs
        if kind == "new"
    )
    return FeedbackCounts(kinds.count("new"), kinds.count("changed"), kinds.count("same"), by_model)


def _check_requests(
    feedbacks: Sequence[Feedback[Any]], requests: dict[str, _LoggedRequest]
) -> None:
    """Raise UnknownRequest naming each unknown request or item once."""
    places: dict[str, int] = {}
    for index, one in enumerate(feedbacks):
        request = requests.get(one.request_id)
        if request is None:
            places.setdefault(f"{one.request_id!r} is not in the prediction log", index)
        elif one.item >= request.items:
            count = f"{request.items} item{'s' if request.items > 1 else ''}"
            places.setdefault(f"{one.request_id!r} had {count}, there is no item {one.item}", index)
    if places:
        raise UnknownRequest(list(places.values()), list(places))
