"""`POST /v1/feedback`: ground truth goes into the prediction log, beside what was predicted."""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from ..store.feedback_schema import Feedback
from ..task.contract import GroundTruth
from .context import RequestError, no_model
from .log_metrics import LogMetrics
from .models import ModelManager
from .prediction_events import PredictionEvents
from .schemas import ERRORS, ErrorResponse, ErrorTable

if TYPE_CHECKING:
    from ..store.feedback import FeedbackCounts

MAX_FEEDBACK = 1000  # labels per request
WRITE_SECONDS = 2.0  # for the newest predictions to reach the log


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


FEEDBACK_ERRORS: ErrorTable = {
    **{status: ERRORS[status] for status in (400, 401, 413)},
    404: {
        "model": ErrorResponse,
        "description": "Request ids that the log does not contain; the first five are named",
    },
    422: ERRORS[422],
    503: {
        "model": ErrorResponse,
        "description": "The prediction log is unavailable or disabled, or no model is loaded",
    },
}


def add_feedback_route(
    api: FastAPI, models: ModelManager, events: PredictionEvents, metrics: LogMetrics
) -> None:
    """Add `POST /v1/feedback` to the API."""

    @api.post(
        "/v1/feedback",
        responses=FEEDBACK_ERRORS,
        tags=["predictions"],
        summary="Send ground truth for earlier predictions",
    )
    async def feedback(request: Request, content: FeedbackRequest) -> FeedbackResponse:
        """Store all labels or none. Sending them again changes nothing."""
        counts = await asyncio.to_thread(_store, content.feedback, models, events)
        for (version, variant), count in counts.by_model.items():
            metrics.feedback(version, variant).inc(count)
        return FeedbackResponse(
            request_id=request.state.request_id,
            new=counts.new,
            changed=counts.changed,
            same=counts.same,
        )


def _store(
    feedback: Sequence[ItemFeedback], models: ModelManager, events: PredictionEvents
) -> "FeedbackCounts":
    """Write labels into the log; RequestError 404, 422 or 503 naming what is wrong."""
    from ..store.database import DatabaseError
    from ..store.feedback import InvalidGroundTruth, UnknownRequest, record_feedback

    if models.active is None:
        raise no_model(models.problem)
    log, settings = events.log, events.settings
    if not log.enabled:
        raise RequestError(503, [], "this server has no prediction log", "no_log")
    score = models.active.champion.bundle.contract.score_json
    events.flush(WRITE_SECONDS)  # a prediction made a moment ago counts
    try:
        log.database.migrate()  # nothing may have been predicted yet
        try:
            return record_feedback(log.database, feedback, score)
        except UnknownRequest:
            if settings.workers > 1:  # another worker may not have written it yet
                time.sleep(2 * settings.log_seconds)
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
