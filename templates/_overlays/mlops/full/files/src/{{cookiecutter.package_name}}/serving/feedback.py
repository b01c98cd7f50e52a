"""`POST /v1/feedback`: pass ground truth on to the collector, which records it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from ..store.feedback_schema import Feedback
from ..task.contract import GroundTruth
from .context import RequestError, asker_of
from .feedback_socket import ANSWER_SECONDS, ask
from .schemas import ERRORS, describe_errors
from .settings import key_hash

if TYPE_CHECKING:
    from .prediction_log import PredictionLog

MAX_FEEDBACK = 1000  # labels per request


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
        409: "An id that its caller sent with several requests; theirs are named",
        429: "Too many labels from this API key or address; see Retry-After",
        503: "The prediction log is unavailable or disabled, or no model is loaded",
    }
)


def add_feedback_route(api: FastAPI, log: PredictionLog) -> None:
    limit = LabelLimit(log.settings.feedback_per_minute)
    trusted = {asker_of(key_hash(key)) for key in log.settings.feedback_keys}

    @api.post(
        "/v1/feedback",
        responses=FEEDBACK_ERRORS,
        tags=["predictions"],
        summary="Send ground truth for earlier predictions",
    )
    async def feedback(request: Request, content: FeedbackRequest) -> FeedbackResponse:
        """Store all labels or none. Sending them again changes nothing.

        An id is that of a response, or the `x-request-id` that the caller chose for it.
        """
        asker = request.state.asker
        sender = asker or (request.client.host if request.client else "")
        limit.take(sender, len(content.feedback))
        if log.models.active is None:
            raise RequestError.no_model(log.models.problem)
        if not log.enabled:
            raise RequestError(503, [], "this server has no prediction log", "no_log")
        message = content.model_dump(mode="json")
        message |= {"asker": asker, "any_request": not asker or asker in trusted}
        answer = await _send(log, message)
        if answer.get("status") == 404:  # another worker or server may still have it
            await asyncio.sleep(min(2 * log.settings.log_seconds, ANSWER_SECONDS))
            answer = await _send(log, message)
        if (status := answer.get("status")) is None:
            return FeedbackResponse(request_id=request.state.request_id, **answer)
        if status == 503:
            reason = f"the prediction log is unavailable: {answer['message']}"
            raise RequestError(503, [], reason, "log", {"retry-after": "5"})
        kind = {404: "unknown_request", 409: "ambiguous_request", 422: "bad_truth"}[status]
        loc = ["body", "feedback", answer["index"], answer["field"]]
        raise RequestError(status, loc, answer["message"], kind)


async def _send(log: PredictionLog, message: dict[str, Any]) -> dict[str, Any]:
    """Ask the collector, once what was predicted before is in the spool."""
    try:
        await asyncio.to_thread(log.flush)
        return await ask(log.folder, message)
    except TimeoutError:
        return {"status": 503, "message": "the collector does not answer"}
    except (OSError, ValueError) as error:
        return {"status": 503, "message": f"no collector reads {log.folder}: {error}"}


class LabelLimit:
    """Limit the labels that one sender may send in a minute."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._minute, self._taken = 0, {}

    def take(self, sender: str, labels: int) -> None:
        """Count labels. Raises RequestError 429 when there are too many."""
        now = time.monotonic()
        if (minute := int(now / 60)) != self._minute:
            self._minute, self._taken = minute, {}
        taken = self._taken.get(sender, 0) + labels
        if taken > self.per_minute and sender in self._taken:
            wait = {"retry-after": str(60 - int(now % 60))}
            message = f"more than {self.per_minute:,} labels in a minute"
            raise RequestError(429, ["body", "feedback"], message, "too_many_labels", wait)
        self._taken[sender] = taken
