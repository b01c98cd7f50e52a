"""Feedback over HTTP: truths go into the prediction log beside what was predicted."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from ..store.feedback_schema import Feedback
from .metrics import ServerMetrics
from .models import ModelManager
from .prediction_events import PredictionEvents

if TYPE_CHECKING:
    from ..store.feedback import FeedbackCounts

MAX_FEEDBACK = 1000  # truths of a request
WRITE_SECONDS = 2.0  # that the newest predictions may take to reach the log


async def store_feedback(
    given: Sequence[Feedback],
    engine: ModelManager,
    recorder: PredictionEvents,
    metrics: ServerMetrics,
) -> "FeedbackCounts":
    """Write truths into the log; HTTPException 404, 422 or 503 naming what is wrong."""
    if engine.live is None:
        raise _refused(503, [], f"no model: {engine.problem}", "no_model")
    if not recorder.logs:
        raise _refused(503, [], "this server keeps no prediction log", "no_log")
    found = await asyncio.to_thread(_record, given, engine, recorder)
    for names, count in found.by_model.items():
        metrics.feedback(*names).inc(count)
    return found


def _record(
    given: Sequence[Feedback], engine: ModelManager, recorder: PredictionEvents
) -> "FeedbackCounts":
    from ..store.database import DatabaseError
    from ..store.feedback import InvalidGroundTruth, UnknownRequest, record_feedback

    assert engine.live is not None, "checked by take"
    score = engine.live.champion.bundle.contract.score_json
    recorder.flush(WRITE_SECONDS)  # an answer that was given a moment ago counts
    try:
        recorder.database.migrate()  # nothing may have been answered yet
        try:
            return record_feedback(recorder.database, given, score)
        except UnknownRequest:
            recorder.wait_for_others()  # another worker may have answered it a moment ago
            return record_feedback(recorder.database, given, score)
    except UnknownRequest as error:
        place = ["body", "feedback", error.indices[0], "request_id"]
        raise _refused(404, place, str(error), "unknown_request") from None
    except InvalidGroundTruth as error:
        place = ["body", "feedback", error.index, "truth"]
        raise _refused(422, place, str(error), "bad_truth") from None
    except DatabaseError as error:
        message = f"the prediction log does not answer: {error}"
        raise _refused(503, [], message, "log", {"Retry-After": "5"}) from None


def _refused(
    status: int,
    loc: Sequence[str | int],
    message: str,
    kind: str,
    headers: dict[str, str] | None = None,
) -> HTTPException:
    detail = {"loc": list(loc), "msg": message, "type": kind}
    return HTTPException(status, detail, headers)  # pyright: ignore[reportArgumentType]
