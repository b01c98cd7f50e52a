"""Record the ground truth of logged predictions."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from .database import Database
from .feedback_schema import Feedback
from .tables import feedback, feedback_history, predictions

MAX_NAMED = 5  # requests in a message
INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class FeedbackCounts(NamedTuple):
    """How much feedback is new, replaced other feedback, or was there already."""

    new: int
    changed: int
    same: int
    by_model: Counter[tuple[str, str]]  # the new ones by model version and variant


class RefusedFeedback(ValueError):
    """Feedback cannot be recorded, and nothing was; `index` is that of the first refused one."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class UnknownRequest(RefusedFeedback):
    """Feedback is about requests that are not in the log."""


class AmbiguousRequest(RefusedFeedback):
    """Feedback names a request by an id that its caller has used for several."""


class InvalidGroundTruth(RefusedFeedback):
    """A ground truth does not fit what was predicted."""


def record_feedback(
    database: Database,
    feedbacks: Sequence[Feedback[Any]],
    score: Callable[[Any, Any], float],
    asker: str = "",
    own_requests: bool = False,
) -> FeedbackCounts:
    """Write feedback into the log, all or none; the same again changes nothing.

    A request is named by the server's id or by the caller's. `score` is the contract's
    `score_json`. `asker` is the hash of an API key, or empty; with `own_requests`, those of other
    keys count as unknown. What is replaced goes into the history. Raises a kind of
    RefusedFeedback.
    """
    given = {one.request_id for one in feedbacks}
    with database.writing() as connection:
        # 1. Look the requests up: number of items, predictions by model version and variant.
        c = predictions.c
        logged = select(
            c.request_id, c.client_id, c.asker, c["items"], c.model_version, c.variant, c.output
        )
        logged = logged.where(or_(c.request_id.in_(given), c.client_id.in_(given))).order_by(c.id)
        named: dict[str, dict[str, None]] = defaultdict(dict)  # the server's ids by a caller's id
        sizes: dict[str, int] = {}
        outputs: dict[str, dict[tuple[str, str], list[Any]]] = defaultdict(dict)
        for request_id, client_id, owner, items, *model, output in connection.execute(logged):
            if not own_requests or not owner or owner == asker:
                named[client_id][request_id] = None
                sizes[request_id] = items
                outputs[request_id][model[0], model[1]] = json.loads(output)
        # 2. Refuse what does not fit.
        ids = _find_requests(feedbacks, sizes, named)
        for index, (one, request_id) in enumerate(zip(feedbacks, ids, strict=True)):
            try:
                for output in outputs[request_id].values():
                    score(output[one.item], one.truth)
            except (ValueError, IndexError) as error:
                raise InvalidGroundTruth(index, " ".join(str(error).split())) from None
        # 3. Compare with what is recorded.
        query = select(feedback).where(feedback.c.request_id.in_(set(ids)))
        recorded = {(row.request_id, row.item): row for row in connection.execute(query)}
        truths = {key: row.truth for key, row in recorded.items()}
        kinds, changes = [], {}
        for one, request_id in zip(feedbacks, ids, strict=True):
            key, text = (request_id, one.item), one.truth.model_dump_json()
            before = truths.get(key)
            kinds.append("new" if before is None else "same" if before == text else "changed")
            if before != text:
                truths[key] = changes[key] = text
        # 4. Write, always in the same order: two who write the same rows must not deadlock.
        if changes:
            now = time.time()
            replaced = [
                {**recorded[key]._mapping, "replaced_at": now, "replaced_by": asker}
                for key in sorted(changes.keys() & recorded.keys())
            ]
            if replaced:
                connection.execute(insert(feedback_history), replaced)
            upsert = INSERT[database.dialect](feedback)
            upsert = upsert.on_conflict_do_update(
                index_elements=[feedback.c.request_id, feedback.c.item],
                set_={"truth": upsert.excluded.truth, "at": upsert.excluded.at},
            )
            values = [
                {"request_id": request_id, "item": item, "truth": truth, "at": now}
                for (request_id, item), truth in sorted(changes.items())
            ]
            connection.execute(upsert, values)
    by_model = Counter(
        model
        for request_id, kind in zip(ids, kinds, strict=True)
        for model in outputs[request_id]
        if kind == "new"
    )
    return FeedbackCounts(kinds.count("new"), kinds.count("changed"), kinds.count("same"), by_model)


def _find_requests(
    feedbacks: Sequence[Feedback[Any]], sizes: dict[str, int], named: dict[str, dict[str, None]]
) -> list[str]:
    """Return the server's id of each request. Raises UnknownRequest or AmbiguousRequest, naming
    each unknown or ambiguous id once."""
    ids: list[str] = []
    unknown: dict[str, int] = {}
    ambiguous: dict[str, int] = {}
    for index, one in enumerate(feedbacks):
        found = [one.request_id] if one.request_id in sizes else list(named.get(one.request_id, ()))
        ids += found[:1]
        if not found:
            unknown.setdefault(f"{one.request_id!r} is not in the prediction log", index)
        elif len(found) > 1:
            reason = f"{one.request_id!r} names {len(found)} requests; send one of their "
            reason += f"x-prediction-id: {_shorten(found, ', ')}"
            ambiguous.setdefault(reason, index)
        elif one.item >= (size := sizes[found[0]]):
            count = f"{size} item{'s' if size > 1 else ''}"
            reason = f"{one.request_id!r} had {count}, there is no item {one.item}"
            unknown.setdefault(reason, index)
    for places, kind in ((unknown, UnknownRequest), (ambiguous, AmbiguousRequest)):
        if places:
            raise kind(min(places.values()), _shorten(places, "; "))
    return ids


def _shorten(names: Iterable[str], separator: str) -> str:
    first, rest = list(names)[:MAX_NAMED], len(list(names)) - MAX_NAMED
    return separator.join(first) + (f" and {rest} more" if rest > 0 else "")
