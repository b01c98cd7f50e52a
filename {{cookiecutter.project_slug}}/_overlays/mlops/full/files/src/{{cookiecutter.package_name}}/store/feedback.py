"""Record the ground truth of logged predictions."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from .database import Database
from .feedback_schema import Feedback
from .tables import feedback, predictions

MAX_NAMED_REQUESTS = 5  # of unknown requests in a message
INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class FeedbackCounts(NamedTuple):
    """How much feedback is new, replaced other feedback, or was there already."""

    new: int
    changed: int
    same: int
    by_model: Counter[tuple[str, str]]  # the new ones by model version and variant


class UnknownRequest(LookupError):
    """Feedback is about requests that are not in the log; `indices` says which feedback."""

    def __init__(self, places: dict[str, int]) -> None:
        named = "; ".join(list(places)[:MAX_NAMED_REQUESTS])
        more = len(places) - MAX_NAMED_REQUESTS
        super().__init__(f"{named} and {more} more" if more > 0 else named)
        self.indices = list(places.values())


class InvalidGroundTruth(ValueError):
    """The ground truth at `index` does not fit what was predicted."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def record_feedback(
    database: Database, feedbacks: Sequence[Feedback[Any]], score: Callable[[Any, Any], float]
) -> FeedbackCounts:
    """Write feedback into the log, all or none; the same again changes nothing.

    `score` is the contract's `score_json`. Raises UnknownRequest for what is not in the log,
    InvalidGroundTruth where `score` raises ValueError.
    """
    ids = {one.request_id for one in feedbacks}
    with database.writing() as connection:
        # 1. Look the requests up: number of items, predictions by model version and variant.
        c = predictions.c
        logged = select(c.request_id, c["items"], c.model_version, c.variant, c.output)
        logged = logged.where(c.request_id.in_(ids)).order_by(c.id)
        sizes: dict[str, int] = {}
        outputs: dict[str, dict[tuple[str, str], list[Any]]] = defaultdict(dict)
        for request_id, items, version, variant, output in connection.execute(logged):
            sizes[request_id] = items
            outputs[request_id][version, variant] = json.loads(output)
        # 2. Refuse what does not fit.
        _check_requests(feedbacks, sizes)
        for index, one in enumerate(feedbacks):
            try:
                for output in outputs[one.request_id].values():
                    score(output[one.item], one.truth)
            except (ValueError, IndexError) as error:
                raise InvalidGroundTruth(index, " ".join(str(error).split())) from None
        # 3. Compare with what is recorded.
        query = select(feedback.c.request_id, feedback.c.item, feedback.c.truth)
        rows = connection.execute(query.where(feedback.c.request_id.in_(ids)))
        recorded = {(request_id, item): truth for request_id, item, truth in rows}
        kinds, changes = [], {}
        for one in feedbacks:
            key, text = (one.request_id, one.item), one.truth.model_dump_json()
            before = recorded.get(key)
            kinds.append("new" if before is None else "same" if before == text else "changed")
            if before != text:
                recorded[key] = changes[key] = text
        # 4. Write, always in the same order: two who write the same rows must not deadlock.
        if changes:
            insert = INSERT[database.dialect](feedback)
            upsert = insert.on_conflict_do_update(
                index_elements=[feedback.c.request_id, feedback.c.item],
                set_={"truth": insert.excluded.truth, "at": insert.excluded.at},
            )
            now = time.time()
            values = [
                {"request_id": request_id, "item": item, "truth": truth, "at": now}
                for (request_id, item), truth in sorted(changes.items())
            ]
            connection.execute(upsert, values)
    by_model = Counter(
        model
        for one, kind in zip(feedbacks, kinds, strict=True)
        for model in outputs[one.request_id]
        if kind == "new"
    )
    return FeedbackCounts(kinds.count("new"), kinds.count("changed"), kinds.count("same"), by_model)


def _check_requests(feedbacks: Sequence[Feedback[Any]], sizes: dict[str, int]) -> None:
    """Raise UnknownRequest naming each unknown request or item once."""
    places: dict[str, int] = {}
    for index, one in enumerate(feedbacks):
        size = sizes.get(one.request_id)
        if size is None:
            places.setdefault(f"{one.request_id!r} is not in the prediction log", index)
        elif one.item >= size:
            count = f"{size} item{'s' if size > 1 else ''}"
            places.setdefault(f"{one.request_id!r} had {count}, there is no item {one.item}", index)
    if places:
        raise UnknownRequest(places)
