"""`POST /v1/feedback`: record ground truth in the prediction log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from ..store.feedback_schema import Feedback
from ..task.contract import GroundTruth
from .context import RequestError
from .schemas import ERRORS, describe_errors

if TYPE_CHECKING:
    from ..store.feedback import FeedbackCounts
    from .prediction_events import PredictionEvents

MAX_FEEDBACK = 1000  # labels per request
WRITE_SECONDS = 2.0  # for the newest predictions to reach the log
MAX_THREADS = 4  # that store feedback at once
STORE_SECONDS = 5.0  # to store it, waiting for a thread included


class ItemFeedback(Feedback[GroundTruth]):
    """The ground truth of one item of an earlier request."""


class FeedbackRequest(BaseModel):
    """Ground truth for one or many predictions."""

    model_config = ConfigDict(extra="forbid")

    feedback: list[ItemFeedback] = Field(min_length=1, max_length=MAX_FEEDBACK, fail_fast=True)


class FeedbackResponse(BaseModel):
    """How many labels are new, replaced another one, or were there already."""

    request_id: str
    new: int
    changed: int
    same: int


FEEDBACK_ERRORS = {
    status: ERRORS[status] for status in (400, 401, 408, 413, 415, 422)
} | describe_errors(
    {
        404: "Request ids that the log does not contain; the first five are named",
        503: "The prediction log is unavailable or disabled, or no model is loaded",
    }
)


def add_feedback_route(api: FastAPI, events: PredictionEvents) -> None:
    slots = asyncio.Semaphore(MAX_THREADS)

    @api.post(
        "/v1/feedback",
        responses=FEEDBACK_ERRORS,
        tags=["predictions"],
        summary="Send ground truth for earlier predictions",
    )
    async def feedback(request: Request, content: FeedbackRequest) -> FeedbackResponse:
        """Store all labels or none. Sending them again changes nothing."""
        counts = await _store_in_time(content.feedback, events, slots)
        for (version, variant), count in counts.by_model.items():
            events.log_metrics.feedback(version, variant).inc(count)
        new, changed, same, _ = counts
        request_id = request.state.request_id
        return FeedbackResponse(request_id=request_id, new=new, changed=changed, same=same)


async def _store_in_time(
    feedback: Sequence[ItemFeedback], events: PredictionEvents, slots: asyncio.Semaphore
) -> FeedbackCounts:
    """Store labels in a thread. Raises RequestError, 503 when the database does not answer."""

    def release(stored: asyncio.Future[FeedbackCounts]) -> None:
        slots.release()  # not before: a thread that hangs keeps its slot
        if not stored.cancelled():
            stored.exception()  # is not reported as forgotten where nobody waits any more

    try:
        async with asyncio.timeout(STORE_SECONDS):
            await slots.acquire()
            stored = asyncio.ensure_future(asyncio.to_thread(_store, feedback, events))
            stored.add_done_callback(release)
            return await asyncio.shield(stored)
    except TimeoutError:
        message = f"the prediction log did not answer within {STORE_SECONDS:g} s"
        raise RequestError(503, [], message, "log", {"retry-after": "5"}) from None


def _store(feedback: Sequence[ItemFeedback], events: PredictionEvents) -> FeedbackCounts:
    """Write labels into the log. Raises RequestError 404, 422 or 503."""
    from ..store.database import DatabaseError
    from ..store.feedback import InvalidGroundTruth, UnknownRequest, record_feedback

    models, log, settings = events.models, events.log, events.settings
    if models.active is None:
        raise RequestError.no_model(models.problem)
    if not log.enabled:
        raise RequestError(503, [], "this server has no prediction log", "no_log")
    score = models.active.champion.bundle.contract.score_json
    events.flush(WRITE_SECONDS)  # a prediction made a moment ago counts
    try:
        log.database.migrate()  # nothing may have been predicted yet
        try:
            return record_feedback(log.database, feedback, score)
        except UnknownRequest:
            if settings.workers == 1:
                raise
            time.sleep(2 * settings.log_seconds)  # another worker may not have written it yet
            return record_feedback(log.database, feedback, score)
    except UnknownRequest as error:
        loc = ["body", "feedback", error.indices[0], "request_id"]
        raise RequestError(404, loc, str(error), "unknown_request") from None
    except InvalidGroundTruth as error:
        loc = ["body", "feedback", error.index, "truth"]
        raise RequestError(422, loc, str(error), "bad_truth") from None
    except DatabaseError as error:
        message = f"the prediction log is unavailable: {error}"
        raise RequestError(503, [], message, "log", {"retry-after": "5"}) from None
