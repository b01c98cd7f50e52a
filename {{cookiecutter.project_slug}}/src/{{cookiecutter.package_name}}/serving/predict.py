"""The predict path, from a request's bytes to the response's.

It is no FastAPI endpoint: the router, its dependencies and its encoders cost several times what a
small model needs. What they would do is done here: media type, size, compression, deadline, typed
validation that names the field. FastAPI only documents the route, and tests keep the two alike.
"""

import asyncio
import time
import zlib
from typing import NamedTuple, Protocol

from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.types import Receive

from ..interfaces import InvalidItem
from ..task.contract import Item
from .context import (
    RawResponse,
    RequestContext,
    RequestError,
    internal_error,
    invalid_request,
    no_model,
    too_large,
)
from .logs import logger
from .metrics import ServerMetrics
from .models import CHAMPION, ActiveModels, ModelManager, ServedModel
from .scheduler import DeadlineExceeded, Overloaded, RequestResult
from .settings import CoreServerSettings

PATH = "/v1/predict"
MAX_SHADOW_REQUESTS = 64  # that may wait for the shadow


class PredictionEvent(NamedTuple):
    """A request that got its predictions, from the model in `model`."""

    model: ServedModel
    test: str | None  # the A/B test that ran
    unit: str  # the caller's, hashed; see ActiveModels.choose
    request_id: str
    at: float  # seconds since the epoch
    seconds: float  # that the answer took
    body: bytes  # of the request
    result: RequestResult


class PredictionObserver(Protocol):
    """What the server does beside predictions; `wiring.create_observer` makes it."""

    def add(self, event: PredictionEvent) -> None:
        """Take a prediction, also a shadow's. On the request's path: be quick, never fail."""

    def add_routes(self, api: FastAPI) -> None:
        """Add routes to the API."""

    def start(self) -> None:
        """Start threads and tasks; called in the event loop."""

    def update_metrics(self) -> None:
        """Bring the metrics up to date before they are read; called in any thread."""

    async def stop(self, seconds: float) -> None:
        """Finish what is pending, within `seconds`."""


class Predict:
    """Answer `POST /v1/predict`."""

    def __init__(
        self,
        settings: CoreServerSettings,
        models: ModelManager,
        metrics: ServerMetrics,
        observer: PredictionObserver,
        request_schema: type[BaseModel],
    ) -> None:
        self.settings, self.models = settings, models
        self.metrics, self.observer = metrics, observer
        self.in_progress = 0
        self._schema = TypeAdapter(request_schema)
        self._caller_header = settings.caller_header.encode()
        self._shadow_tasks: set[asyncio.Task[None]] = set()

    async def respond(self, context: RequestContext, receive: Receive) -> RawResponse:
        """Answer with predictions or an error."""
        self.in_progress += 1
        # 1. Which model answers this caller?
        active = self.models.active
        if active is None:
            model, unit = None, ""
        else:
            caller = context.headers.get(self._caller_header, b"").decode("latin-1")
            model, unit = active.choose(caller, context.request_id)
        # 2. Read, validate, predict
        try:
            body = await self._read(context, receive)
            if active is None or model is None:
                raise no_model(self.models.problem)
            if model.queue.full:  # before the work of parsing, which would be in vain
                raise Overloaded
            items: list[Item] = self._schema.validate_json(body).items  # pyright: ignore[reportAttributeAccessIssue]
            result = await model.queue.submit(items, self._deadline(context))
        except Exception as error:
            version, variant = self.models.version, CHAMPION
            if model is not None:
                version, variant = model.version, model.variant
            status, headers, content = context.error_response(
                _request_error(error, context.request_id), version
            )
            headers.append((b"x-model-variant", variant.encode()))
            context.finish(self.metrics, self.settings.access_log, PATH, status, version, variant)
            return status, headers, content
        finally:
            self.in_progress -= 1
        # 3. Count, log, let the shadow answer too. The observer counts off the request's path.
        seconds = time.perf_counter() - context.started
        event = PredictionEvent(
            model,
            active.deployment.test,
            unit,
            context.request_id,
            time.time(),
            seconds,
            body,
            result,
        )
        self.observer.add(event)
        if active.challenger is not None:
            self._run_shadow(active, event, items)
        if self.settings.access_log:
            context.log_access(True, PATH, 200, model.version, seconds)
        # 4. Write the response
        content = b'{"request_id":"%b",%b,"predictions":%b}' % (
            context.request_id.encode(),
            model.response_head,
            result.body,
        )
        timing = b"queue;dur=%.3f, compute;dur=%.3f" % (
            result.queued * 1000,
            result.computed * 1000,
        )
        headers = context.json_headers(content, model.version)
        headers += (b"x-model-variant", model.variant.encode()), (b"server-timing", timing)
        return 200, headers, content

    async def _read(self, context: RequestContext, receive: Receive) -> bytes:
        """Read the body and decompress it; RequestError as soon as it cannot be accepted."""
        headers, limit = context.headers, self.settings.max_body_bytes
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type != b"application/json":
            name = media_type.decode("latin-1") or "missing"
            message = f"content-type is {name}, must be application/json"
            raise RequestError(415, ["header", "content-type"], message, "content_type")
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            raise too_large(limit)
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body", False):
            body = await self._read_rest(bytearray(body), receive)
        elif message["type"] == "http.disconnect":
            raise _disconnected()
        if len(body) > limit:
            raise too_large(limit)
        encoding = headers.get(b"content-encoding")
        return _decompress(body, encoding, limit) if encoding else body

    async def _read_rest(self, body: bytearray, receive: Receive) -> bytes:
        """Read the rest of a body that arrives in parts, within `body_seconds`."""
        limit, seconds = self.settings.max_body_bytes, self.settings.body_seconds
        try:
            async with asyncio.timeout(seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _disconnected()
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise too_large(limit)
                    more = message.get("more_body", False)
        except TimeoutError:
            message = f"body did not arrive within {seconds:g} s"
            # What still arrives of this body must not be read as the next request.
            headers = {"connection": "close"}
            raise RequestError(408, ["body"], message, "body_too_slow", headers) from None
        return bytes(body)

    def _deadline(self, context: RequestContext) -> float:
        """The time, by `time.perf_counter`, at which inference must have started."""
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

    def _run_shadow(self, active: ActiveModels, event: PredictionEvent, items: list[Item]) -> None:
        """Let the shadow answer as well, if it takes part, after the caller has its answer."""
        model = active.shadow(event.unit)
        if model is None:
            return
        if len(self._shadow_tasks) >= MAX_SHADOW_REQUESTS:
            self.metrics.shadow_dropped.inc()
            return
        task = asyncio.create_task(self._predict_shadow(model, event, items))
        self._shadow_tasks.add(task)
        task.add_done_callback(self._shadow_tasks.discard)

    async def _predict_shadow(
        self, model: ServedModel, event: PredictionEvent, items: list[Item]
    ) -> None:
        await asyncio.sleep(0)  # the caller's response is sent first
        started = time.perf_counter()
        try:
            deadline = started + self.settings.deadline_ms / 1000
            result = await model.queue.submit(items, deadline)
        except (Overloaded, DeadlineExceeded, InvalidItem):
            self.metrics.shadow_dropped.inc()
            return
        except Exception:  # of the challenger: nobody waits for its answer
            logger.exception("shadow failed", extra={"fields": {"model_version": model.version}})
            self.metrics.shadow_dropped.inc()
            return
        seconds = time.perf_counter() - started
        self.observer.add(event._replace(model=model, seconds=seconds, result=result))


def _request_error(error: Exception, request_id: str) -> RequestError:
    """Translate whatever kept a request from its predictions; log what is unexpected."""
    match error:
        case RequestError():
            return error
        case ValidationError():
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            return invalid_request(["body", *first["loc"]], first["msg"], first["type"])
        case InvalidItem():
            loc = ["body", "items", error.index, error.field]
            return RequestError(422, loc, str(error), "invalid_item")
        case Overloaded():
            message = "server overloaded, retry later"
            return RequestError(503, [], message, "overloaded", {"retry-after": "1"})
        case DeadlineExceeded():
            message = "deadline exceeded before inference started"
            return RequestError(504, [], message, "deadline")
        case _:
            fields = {"request_id": request_id}
            logger.error("unexpected error", exc_info=error, extra={"fields": fields})
            return internal_error()


def _disconnected() -> RequestError:
    return RequestError(499, [], "the client disconnected", "disconnected")


def _decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decompress a body, to no more than `limit` bytes."""
    coding = encoding.strip().lower()
    if coding == b"identity":
        return body
    if coding != b"gzip":
        message = f"unsupported content-encoding {coding.decode('latin-1')}, use gzip or none"
        raise RequestError(415, ["header", "content-encoding"], message, "content_encoding")
    decompressor = zlib.decompressobj(wbits=31)
    try:
        content = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(400, ["body"], f"body is not valid gzip: {error}", "gzip") from None
    if len(content) > limit:
        raise too_large(limit)
    if not decompressor.eof or decompressor.unused_data:
        fault = "data follow its end" if decompressor.eof else "it is truncated"
        raise RequestError(400, ["body"], f"body is not one whole gzip stream: {fault}", "gzip")
    return content
