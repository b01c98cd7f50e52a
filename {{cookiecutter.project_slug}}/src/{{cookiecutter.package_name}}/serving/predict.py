"""The way of a prediction, from the request's bytes to the answer's.

It is not a FastAPI endpoint: the router, its dependencies and its encoders cost several times what
a small model needs. What they would do is done here: the request's id, media type and size, typed
validation that names the field, the answer's headers, metrics and log. The documentation shows it
like any other route, and tests hold the two together.
"""

import asyncio
import json
import time
import zlib
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from starlette.types import Receive, Scope, Send

from ..interfaces import InvalidItem
from ..task.contract import Item
from .logs import logger
from .metrics import ServerMetrics
from .middleware import client_request_id, error_body, log_access, new_request_id
from .models import CHAMPION, ActiveModels, ModelManager, ServedModel
from .prediction_events import PredictionEvent, PredictionEvents
from .scheduler import DeadlineExceeded, Overloaded
from .settings import ServerSettings

PATH = "/v1/predict"
MAX_SHADOW_REQUESTS = 64  # requests that may wait for the shadow
Headers = list[tuple[bytes, bytes]]


class RequestError(Exception):
    """The request is answered with this status and no prediction."""

    def __init__(self, status: int, loc: list[str | int], message: str, kind: str) -> None:
        super().__init__(message)
        self.status, self.loc, self.kind = status, loc, kind


class RequestHeaders(NamedTuple):
    """What the headers of a request say."""

    media: bytes
    encoding: bytes
    length: bytes
    timeout: bytes
    request_id: str
    caller: str  # the key that keeps a caller with one variant; may be empty


def request_model(most: int) -> type[BaseModel]:
    """What a request's body must be, with so many items at most."""
    items = Field(min_length=1, max_length=most, fail_fast=True)
    return create_model(
        "PredictRequest",
        __config__=ConfigDict(extra="forbid"),
        __doc__="One or many items to predict.",
        items=(list[Item], items),
    )


class Predict:
    """An ASGI application that answers `POST /v1/predict`."""

    def __init__(
        self,
        settings: ServerSettings,
        engine: ModelManager,
        metrics: ServerMetrics,
        recorder: PredictionEvents,
    ) -> None:
        self.settings, self.engine = settings, engine
        self.metrics, self.recorder = metrics, recorder
        self.in_progress = 0
        self._body = TypeAdapter(request_model(settings.max_items))
        self._caller = settings.caller_header.encode()
        self._shadows: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers, body = await self.respond(scope, receive)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def respond(self, scope: Scope, receive: Receive) -> tuple[int, Headers, bytes]:
        """Status, headers and body of the answer."""
        started = time.perf_counter()
        self.in_progress += 1
        asked = _asked(scope, self._caller)
        live = self.engine.live
        model, unit = live.choose(asked.caller, asked.request_id) if live else (None, "")
        try:
            body = await self._read(asked, receive)
            if live is None or model is None:
                raise RequestError(503, [], f"no model: {self.engine.problem}", "no_model")
            if model.queue.full:  # before the work of reading it, which would be in vain
                raise Overloaded
            items: list[Item] = self._body.validate_json(body).items  # pyright: ignore[reportAttributeAccessIssue]
            answer = await model.queue.submit(items, self._deadline(asked, started))
        except Exception as error:
            refused = _refusal(error, asked.request_id)
            return self._refuse(scope, refused, asked.request_id, model, started)
        finally:
            self.in_progress -= 1
        seconds = time.perf_counter() - started
        noted = PredictionEvent(
            model, live.deployment.test, unit, asked.request_id, time.time(), seconds, body, answer
        )
        self.recorder.add(noted)
        if live.challenger is not None:
            self._shadow(live, noted, items)
        if self.settings.access_log:
            log_access(self.settings, scope, PATH, 200, seconds, asked.request_id, model.version)
        content = b'{"request_id":"%b",%b,"predictions":%b}' % (
            asked.request_id.encode(),
            model.head,
            answer.body,
        )
        timing = b"queue;dur=%.3f, compute;dur=%.3f" % (
            answer.queued * 1000,
            answer.computed * 1000,
        )
        headers = _headers(content, asked.request_id, model.version, model.variant)
        headers.append((b"server-timing", timing))
        return 200, headers, content

    async def _read(self, asked: RequestHeaders, receive: Receive) -> bytes:
        """The body, unpacked; Refused as soon as it is known not to be acceptable."""
        media = asked.media.partition(b";")[0].strip().lower()
        if media != b"application/json":
            shown = media.decode("latin-1") or "missing"
            message = f"is {shown}, must be application/json"
            raise RequestError(415, ["header", "content-type"], message, "content_type")
        limit = self.settings.max_body_bytes
        if asked.length.isdigit() and int(asked.length) > limit:
            raise _too_large(limit)
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body", False):
            body = await self._read_on(bytearray(body), limit, receive)
        elif message["type"] == "http.disconnect":
            raise RequestError(499, [], "the caller went away", "disconnected")
        if len(body) > limit:
            raise _too_large(limit)
        return _unpacked(body, asked.encoding, limit) if asked.encoding else body

    async def _read_on(self, body: bytearray, limit: int, receive: Receive) -> bytes:
        """The rest of a body that arrives in parts; a slow caller holds nothing but its socket."""
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestError(499, [], "the caller went away", "disconnected")
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise _too_large(limit)
                    more = message.get("more_body", False)
        except TimeoutError:
            text = f"did not arrive within {self.settings.body_seconds:g} s"
            raise RequestError(408, ["body"], text, "body_too_slow") from None
        return bytes(body)

    def _deadline(self, asked: RequestHeaders, started: float) -> float:
        wanted = self.settings.deadline_ms
        if asked.timeout:
            try:
                own = float(asked.timeout)
                if not own > 0:
                    raise ValueError
                wanted = min(wanted, own)
            except ValueError:
                place: list[str | int] = ["header", "x-timeout-ms"]
                text = "must be a number of milliseconds above 0"
                raise RequestError(422, place, text, "timeout") from None
        return started + wanted / 1000

    def _refuse(
        self,
        scope: Scope,
        refused: RequestError,
        request_id: str,
        model: ServedModel | None,
        started: float,
    ) -> tuple[int, Headers, bytes]:
        seconds = time.perf_counter() - started
        version = model.version if model else self.engine.version
        variant = model.variant if model else CHAMPION
        self.metrics.request(PATH, refused.status, version, variant, seconds)
        log_access(self.settings, scope, PATH, refused.status, seconds, request_id, version)
        content = json.dumps(
            error_body(refused.loc, str(refused), refused.kind, request_id)
        ).encode()
        headers = _headers(content, request_id, version, variant)
        if refused.status == 503:
            headers.append((b"retry-after", b"1"))
        if refused.status == 408:
            headers.append((b"connection", b"close"))
        return refused.status, headers, content

    def _shadow(self, live: ActiveModels, noted: PredictionEvent, items: list[Item]) -> None:
        """Let the shadow answer as well, after the caller has its answer."""
        model = live.shadow(noted.unit)
        if model is None:
            return
        if len(self._shadows) >= MAX_SHADOW_REQUESTS:
            self.metrics.shadow_dropped.inc()
            return
        task = asyncio.create_task(self._answer_unseen(model, noted, items))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _answer_unseen(
        self, model: ServedModel, noted: PredictionEvent, items: list[Item]
    ) -> None:
        await asyncio.sleep(0)  # the caller's answer is sent first
        started = time.perf_counter()
        try:
            deadline = started + self.settings.deadline_ms / 1000
            answer = await model.queue.submit(items, deadline)
        except (Overloaded, DeadlineExceeded, InvalidItem):
            self.metrics.shadow_dropped.inc()
            return
        except Exception:  # of the challenger: nobody waits for its answer
            logger.exception("the shadow failed", extra={"fields": {"version": model.version}})
            self.metrics.shadow_dropped.inc()
            return
        seconds = time.perf_counter() - started
        self.recorder.add(noted._replace(model=model, seconds=seconds, answer=answer))


def _asked(scope: Scope, caller_header: bytes) -> RequestHeaders:
    media = encoding = length = timeout = caller = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            media = value
        elif name == b"content-length":
            length = value
        elif name == b"content-encoding":
            encoding = value
        elif name == b"x-timeout-ms":
            timeout = value
        elif name == caller_header:
            caller = value
    request_id = client_request_id(scope) or new_request_id()
    return RequestHeaders(media, encoding, length, timeout, request_id, caller.decode("latin-1"))


def _headers(content: bytes, request_id: str, version: str, variant: str) -> Headers:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"x-request-id", request_id.encode()),
        (b"x-model-version", version.encode()),
        (b"x-model-variant", variant.encode()),
    ]


def _refusal(error: Exception, request_id: str) -> RequestError:
    """What a request is told instead of its predictions."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        status = 400 if first["type"] == "json_invalid" else 422
        return RequestError(status, ["body", *first["loc"]], first["msg"], first["type"])
    if isinstance(error, InvalidItem):
        place: list[str | int] = ["body", "items", error.index, error.field]
        return RequestError(422, place, str(error), "invalid_item")
    if isinstance(error, Overloaded):
        return RequestError(503, [], "too much work waits already, try again later", "overloaded")
    if isinstance(error, DeadlineExceeded):
        return RequestError(504, [], "could not be begun before its deadline", "deadline")
    fields = {"request_id": request_id}
    logger.error("unexpected error", exc_info=error, extra={"fields": fields})
    return RequestError(500, [], "unexpected error in the server", "internal")


def _too_large(limit: int) -> RequestError:
    return RequestError(413, ["body"], f"is larger than {limit:,} bytes", "too_large")


def _unpacked(body: bytes, encoding: bytes, limit: int) -> bytes:
    """A body that was sent packed; never more than `limit` bytes of it."""
    place: list[str | int] = ["header", "content-encoding"]
    coding = encoding.strip().lower()
    if coding == b"identity":
        return body
    if coding != b"gzip":
        shown = coding.decode("latin-1")
        raise RequestError(415, place, f"is {shown}, only gzip will do", "content_encoding")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(400, ["body"], f"is not gzip: {error}", "gzip") from None
    if len(content) > limit:
        raise _too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        wrong = "something follows its end" if unpacker.eof else "its end is missing"
        raise RequestError(400, ["body"], f"is not one whole gzip: {wrong}", "gzip")
    return content
