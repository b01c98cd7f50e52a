"""The predict path, from a request's bytes to the response's.

It is no FastAPI endpoint: the router, its dependencies and its encoders cost several times what a
small model needs. FastAPI only documents the route, and tests keep the two alike.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive

from ..interfaces import InvalidItem
from ..task.contract import Item
from .context import RawResponse, RequestContext, RequestError, TraceContext
from .logs import logger
from .metrics import ServerMetrics
from .models import CHAMPION, ActiveModels, ModelManager, ServedModel
from .parser_process import LARGE_SECONDS, ParserProcess, parse_seconds
from .scheduler import MAX_SLOW_SECONDS, DeadlineExceeded, Overloaded, RequestResult, TooSlow
from .schemas import first_problem, predict_request
from .settings import CoreServerSettings

if TYPE_CHECKING:
    from .tracing import RequestSpans

PATH = "/v1/predict"
MAX_SHADOW_REQUESTS = 64  # that may wait for the shadow


class PredictionEvent(NamedTuple):
    """A request and its predictions."""

    model: ServedModel
    test: str | None  # the A/B test that ran
    unit: str  # the caller's, hashed; see ActiveModels.choose
    request_id: str  # the server's own
    client_id: str | None  # the caller's x-request-id
    caller: str  # as the caller header says; empty without
    asker: str  # the API key, hashed; empty without keys
    at: float  # seconds since the epoch
    seconds: float  # until the response
    body: bytes  # of the request
    result: RequestResult
    trace: TraceContext | None = None


class PredictionObserver(Protocol):
    """What the server does beside predictions; `wiring.create_observer` makes it."""

    def add(self, event: PredictionEvent) -> None:
        """Take a prediction, also a shadow's. On the request's path: be quick, never fail."""

    def add_routes(self, api: FastAPI) -> None:
        """Add routes to the API."""

    def start(self) -> None:
        """Start threads and tasks; called in the event loop."""

    def update_metrics(self) -> bytes:
        """Bring the metrics up to date before they are read, and return those of other processes in
        Prometheus' text format; called in any thread."""
        ...

    @property
    def problem(self) -> str | None:
        """What is wrong beside predictions, for readiness."""

    async def stop(self, seconds: float) -> None:
        """Finish what is pending, within `seconds`."""


@dataclass(eq=False)
class Predict:
    """Answer `POST /v1/predict`."""

    settings: CoreServerSettings
    models: ModelManager
    metrics: ServerMetrics
    observer: PredictionObserver
    in_progress: int = 0

    def __post_init__(self) -> None:
        self.request_schema = predict_request(self.settings.max_items)
        self._adapter = TypeAdapter(self.request_schema)
        self.parser = ParserProcess(self.settings.max_items)
        self._caller_header = self.settings.caller_header.encode()
        self._shadow_tasks: set[asyncio.Task[None]] = set()

    async def respond(self, context: RequestContext, receive: Receive) -> RawResponse:
        """Answer with predictions or an error."""
        self.in_progress += 1
        # 1. Choose the model.
        active, model, unit, caller = self.models.active, None, "", ""
        if active is not None:
            caller = context.headers.get(self._caller_header, b"").decode("latin-1")
            model, unit = active.choose(caller, context.request_id)
        # 2. Read, validate, predict.
        try:
            body = await self._read(context, receive)
            if active is None or model is None:
                raise RequestError.no_model(self.models.problem)
            if model.queue.full:  # before the work of parsing, which would be in vain
                raise Overloaded
            items = await self._parse(body)
            result = await model.queue.submit(items, self._deadline(context))
        except Exception as error:
            version, variant = self.models.version, CHAMPION
            if model is not None:
                version, variant = model.version, model.variant
            request_error = _request_error(error, context)
            status, headers, content = context.error_response(request_error, version)
            headers.append((b"x-model-variant", variant.encode()))
            context.finish(PATH, status, version, variant)
            return status, headers, content
        finally:
            self.in_progress -= 1
        # 3. Count, log, let the shadow predict too. The observer counts off the request's path.
        seconds = time.perf_counter() - context.started
        ids = context.own_id, context.client_id, caller, context.asker
        test = active.deployment.test
        at, trace = time.time(), context.trace
        event = PredictionEvent(model, test, unit, *ids, at, seconds, body, result, trace)
        self.observer.add(event)
        if (spans := context.scope.get("spans")) is not None:  # tracing.py
            spans.event = event
        if active.challenger is not None:
            self._run_shadow(active, event, items, spans)
        if context.access_log:
            context.log_access(PATH, 200, model.version, seconds)
        # 4. Write the response.
        members = context.request_id.encode(), model.response_head, result.body
        content = b'{"request_id":"%b",%b,"predictions":%b}' % members
        milliseconds = result.queued * 1000, result.computed * 1000
        timing = b"queue;dur=%.3f, compute;dur=%.3f" % milliseconds
        headers = context.json_headers(content, model.version)
        headers += (b"x-model-variant", model.variant.encode()), (b"server-timing", timing)
        headers.append((b"x-prediction-id", context.own_id.encode()))
        return 200, headers, content

    async def _read(self, context: RequestContext, receive: Receive) -> bytes:
        """Read the body. Raises RequestError as soon as it cannot be accepted."""
        media_type = context.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type != b"application/json":
            name = media_type.decode("latin-1") or "missing"
            message = f"content-type is {name}, must be application/json"
            raise RequestError(415, ["header", "content-type"], message, "content_type")
        return await context.read_body(receive, self.settings)

    async def _parse(self, body: bytes) -> list[Item]:
        if (seconds := parse_seconds(body)) > LARGE_SECONDS:
            return await self.parser.parse(body, seconds)
        return self._adapter.validate_json(body).items  # pyright: ignore[reportAttributeAccessIssue]

    def _deadline(self, context: RequestContext) -> float:
        """Return when, by `time.perf_counter`, inference must have started."""
        milliseconds = self.settings.deadline_ms
        if timeout := context.headers.get(b"x-timeout-ms"):
            try:
                requested = float(timeout)
                if not requested > 0:  # not "<=": nan
                    raise ValueError
                milliseconds = min(milliseconds, requested)
            except ValueError:
                message = "x-timeout-ms must be a number of milliseconds greater than 0"
                raise RequestError(422, ["header", "x-timeout-ms"], message, "timeout") from None
        return context.started + milliseconds / 1000

    def _run_shadow(
        self,
        active: ActiveModels,
        event: PredictionEvent,
        items: list[Item],
        spans: "RequestSpans | None",
    ) -> None:
        """Let the shadow predict too, if it takes part, once the caller has its response."""
        model = active.shadow(event.unit)
        if model is None:
            return
        if len(self._shadow_tasks) >= MAX_SHADOW_REQUESTS:
            self.metrics.shadow_dropped.inc()
            return
        task = asyncio.create_task(self._predict_shadow(model, event, items, spans))
        self._shadow_tasks.add(task)
        task.add_done_callback(self._shadow_tasks.discard)

    async def _predict_shadow(
        self,
        model: ServedModel,
        event: PredictionEvent,
        items: list[Item],
        spans: "RequestSpans | None",
    ) -> None:
        await asyncio.sleep(0)  # the caller's response is sent first
        started = time.perf_counter()
        try:
            result = await model.queue.submit(items, started + self.settings.deadline_ms / 1000)
        except Exception as error:  # of the challenger: nobody waits for its response
            self.metrics.shadow_dropped.inc()
            if not isinstance(error, (Overloaded, DeadlineExceeded, InvalidItem, TooSlow)):
                fields = {"model_version": model.version}
                logger.exception("shadow failed", extra={"fields": fields})
            return
        seconds = time.perf_counter() - started
        event = event._replace(model=model, seconds=seconds, result=result)
        self.observer.add(event)
        if spans is not None:
            spans.shadow(event)


def _request_error(error: Exception, context: RequestContext) -> RequestError:
    """Translate whatever kept a request from its predictions; log what is unexpected."""
    match error:
        case RequestError():
            return error
        case ValidationError():
            return RequestError.invalid(*first_problem(error))
        case InvalidItem():
            loc = ["body", "items", error.index, error.field]
            return RequestError(422, loc, str(error), "invalid_item")
        case Overloaded():
            headers = {"retry-after": "1"}
            return RequestError(503, [], "server overloaded, retry later", "overloaded", headers)
        case TooSlow(args=[seconds]):
            message = (
                f"would take about {seconds:.0f} s to read, more than {MAX_SLOW_SECONDS:g}: send "
                "fewer or smaller items"
            )
            return RequestError(413, ["body", "items"], message, "too_slow")
        case DeadlineExceeded():
            message = "deadline exceeded before inference started"
            return RequestError(504, [], message, "deadline")
        case _:
            logger.error("unexpected error", exc_info=error, extra={"fields": context.ids()})
            return RequestError.internal()
