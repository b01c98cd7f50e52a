"""The HTTP server: FastAPI's routing and documentation around ONNX Runtime."""

import asyncio
import gc
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from ..store.feedback_schema import Feedback
from ..task.contract import GroundTruth, Prediction
from . import feedback, monitor
from .logs import configure
from .metrics import ServerMetrics
from .middleware import RequestMiddleware, client_request_id, error_body, log_access, new_request_id
from .models import CHAMPION, ModelManager
from .predict import PATH, Predict, request_model
from .prediction_events import PredictionEvents
from .server import SWITCH_SECONDS
from .settings import ServerSettings, load_server_settings


class PredictResponse(BaseModel):
    """One prediction per item, in the same order, and which model made them."""

    request_id: str = Field(
        description="for feedback; the caller's own x-request-id if it sent one"
    )
    model: str
    model_version: str
    predictions: list[Prediction]


class ErrorResponse(BaseModel):
    """What was wrong: `loc` is the way to the field."""

    class Detail(BaseModel):
        loc: list[str | int]
        msg: str
        type: str

    detail: list[Detail]
    request_id: str


class ModelInfo(BaseModel):
    """A model that answers."""

    variant: str = Field(description="champion, challenger, or shadow that answers nobody")
    name: str
    version: str
    task: str
    created_at: str
    loaded_at: str
    share: float | None = Field(description="of the callers, while a challenger is tested")
    engine: str = Field(description="inline in the event loop, or in lanes, threads of their own")
    microseconds_per_item: int
    metrics: dict[str, float]
    baseline_metrics: dict[str, dict[str, float]]


class Models(BaseModel):
    """The models that answer, and why the newest deployment is not among them, if so."""

    models: list[ModelInfo]
    problem: str | None
    worker: int = Field(description="number of the process that answered")


class Health(BaseModel):
    """Whether the server lives, or is ready to answer; `reason` when something is amiss."""

    status: str
    model_version: str | None = None
    reason: str | None = None
    worker: int = Field(default_factory=os.getpid, description="the process that answered")


class ItemFeedback(Feedback[GroundTruth]):
    """The ground truth of one item of an earlier request."""


class FeedbackRequest(BaseModel):
    """What turned out to be right, for one or many predictions."""

    model_config = ConfigDict(extra="forbid")

    feedback: list[ItemFeedback] = Field(
        min_length=1, max_length=feedback.MAX_FEEDBACK, fail_fast=True
    )


class FeedbackResponse(BaseModel):
    """How many truths are new, replace another one, or were known."""

    request_id: str
    new: int
    changed: int
    same: int


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The body is not JSON"},
    401: {
        "model": ErrorResponse,
        "description": "The server wants a key and got none that it knows",
    },
    408: {"model": ErrorResponse, "description": "The body took too long to arrive"},
    413: {"model": ErrorResponse, "description": "The body is too large"},
    415: {"model": ErrorResponse, "description": "The body is not application/json, plain or gzip"},
    422: {"model": ErrorResponse, "description": "A field is wrong; the answer names it"},
    503: {"model": ErrorResponse, "description": "Too much to do, or no model; see Retry-After"},
    504: {"model": ErrorResponse, "description": "The deadline passed before the work was begun"},
}
FEEDBACK_ERRORS: dict[int | str, dict[str, Any]] = {
    **{status: ERRORS[status] for status in (400, 401, 413)},
    404: {
        "model": ErrorResponse,
        "description": "Request ids that the log does not know; five are named",
    },
    422: ERRORS[422],
    503: {
        "model": ErrorResponse,
        "description": "The prediction log does not answer, or there is none",
    },
}


class Application:
    """The outermost ASGI application: keys first; predictions pass by the router."""

    def __init__(self, rest: FastAPI, predict: Predict, keys: list[str]) -> None:
        self.rest, self.predict = rest, predict
        self.keys = {sha256(key.encode()).digest() for key in keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.rest(scope, receive, send)
        elif self.keys and scope["path"].startswith("/v1/") and not self._knows(scope):
            await self._unknown(scope, receive, send)
        elif scope["path"] == PATH and scope["method"] == "POST":
            await self.predict(scope, receive, send)
        else:
            await self.rest(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        """Whether a key was sent that is one of ours; digests give away nothing by their timing."""
        headers = dict(scope["headers"])
        given = headers.get(b"x-api-key", b"")
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer":
            given = token
        return sha256(given).digest() in self.keys

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = client_request_id(scope) or new_request_id()
        message = "send a key as x-api-key, or as authorization: Bearer KEY"
        content = error_body(["header", "x-api-key"], message, "api_key", request_id)
        route, version = PATH if scope["path"] == PATH else "unknown", self.predict.engine.version
        own = {"x-request-id": request_id, "x-model-version": version}
        headers = {"www-authenticate": "Bearer", **own}
        await JSONResponse(content, 401, headers)(scope, receive, send)
        self.predict.metrics.request(route, 401, version, CHAMPION, 0.0)
        log_access(self.predict.settings, scope, route, 401, 0.0, request_id, version)


def from_environment() -> ASGIApp:
    """The application with the settings of the environment, for each worker."""
    settings = load_server_settings()
    configure(settings.log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    return create_app(settings)


def create_app(settings: ServerSettings) -> ASGIApp:
    """The application; it starts with or without a deployment."""
    metrics = ServerMetrics()
    engine = ModelManager(settings, metrics)
    recorder = PredictionEvents(settings, metrics)
    predict = Predict(settings, engine, metrics, recorder)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(engine.refresh)
        recorder.start()
        gc.freeze()  # what is there stays there: later collections need not look at it
        gc.enable()
        tasks = [
            asyncio.create_task(engine.watch()),
            asyncio.create_task(
                monitor.watch_metrics(engine, recorder, metrics, settings.monitor_seconds)
            ),
        ]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        engine.close()
        await asyncio.to_thread(recorder.stop, settings.drain_seconds)

    rest = FastAPI(
        title="Prediction service",
        description=f"Answers with the models in `{settings.deployment_dir}`.",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page fetches its scripts from elsewhere; ours brings them
        redoc_url=None,
    )
    _describe(rest, engine)
    rest.mount("/swagger", StaticFiles(packages=[("fastapi_swagger", "resources")]))
    rest.add_middleware(RequestMiddleware, engine=engine, metrics=metrics, settings=settings)
    rest.add_exception_handler(HTTPException, _http_problem)
    rest.add_exception_handler(RequestValidationError, _validation_problem)

    # The schema is given by hand, as the body is read and parsed on a shorter way (predict.py).
    @rest.post(
        PATH,
        response_model=PredictResponse,
        responses=ERRORS,
        openapi_extra=_documented(request_model(settings.max_items)),
        tags=["predictions"],
        summary="Predict one or many items",
    )
    async def predictions(request: Request) -> Response:
        """One prediction per item, in the same order; the example is from the model's own data."""
        status, headers, body = await predict.respond(request.scope, request.receive)
        answer = Response(body, status)
        answer.raw_headers = headers
        return answer

    @rest.post(
        "/v1/feedback",
        responses=FEEDBACK_ERRORS,
        tags=["predictions"],
        summary="Tell what turned out to be right",
    )
    async def feedbacks(request: Request, given: FeedbackRequest) -> FeedbackResponse:
        """All truths are taken or none; sending them again changes nothing."""
        found = await feedback.store_feedback(given.feedback, engine, recorder, metrics)
        return FeedbackResponse(
            request_id=request.state.request_id,
            new=found.new,
            changed=found.changed,
            same=found.same,
        )

    @rest.get(
        "/v1/models",
        responses={401: ERRORS[401]},
        tags=["models"],
        summary="Which models answer",
    )
    async def models() -> Models:
        """The models that answer, with their quality as measured after training."""
        test = engine.live.deployment.challenger if engine.live else None
        found = []
        for model in engine.models():
            manifest = {name: model.bundle.manifest.get(name) for name in ModelInfo.model_fields}
            share = None
            if test is not None and test.mode == "split":
                share = test.share if model.variant == "challenger" else 1 - test.share
            own = {
                "variant": model.variant,
                "loaded_at": model.loaded_at,
                "share": share,
                "engine": model.engine,
                "microseconds_per_item": model.microseconds,
            }
            found.append(ModelInfo.model_validate({**manifest, **own}))
        return Models(models=found, problem=engine.problem, worker=os.getpid())

    @rest.get("/healthz", tags=["operation"], summary="Whether the process lives")
    async def healthz() -> Health:
        """200 as long as the process answers at all."""
        return Health(status="alive")

    @rest.get(
        "/readyz",
        tags=["operation"],
        summary="Whether a model answers",
        response_model=Health,
        responses={503: {"model": Health, "description": "No model: the reason says why"}},
    )
    async def readyz() -> JSONResponse:
        """200 when a model is loaded and has answered its own example."""
        if engine.live is None:
            state = Health(status="not ready", reason=engine.problem)
            return JSONResponse(state.model_dump(), 503)
        state = Health(status="ready", model_version=engine.version, reason=engine.problem)
        return JSONResponse(state.model_dump())

    @rest.get(
        "/metrics",
        tags=["operation"],
        summary="Metrics for Prometheus",
        response_class=PlainTextResponse,
    )
    async def prometheus() -> Response:
        """Traffic, errors, latency, drift, quality and the log's state, in Prometheus' format."""
        metrics.in_progress.set(predict.in_progress)
        await asyncio.to_thread(recorder.digest)
        return Response(await asyncio.to_thread(metrics.render), media_type=CONTENT_TYPE_LATEST)

    @rest.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(  # addresses are relative, so a proxy may add a prefix
            openapi_url="openapi.json",
            title=rest.title,
            swagger_js_url="swagger/swagger-ui-bundle.js",
            swagger_css_url="swagger/swagger-ui.css",
            swagger_favicon_url="swagger/favicon-32x32.png",
        )

    @rest.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")

    app: ASGIApp = Application(rest, predict, settings.api_keys)
    if settings.cors_origins:
        app = CORSMiddleware(
            app, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app


def _describe(rest: FastAPI, engine: ModelManager) -> None:
    """Give the documentation an example that the model which answers now can take."""
    described = rest.openapi

    def describe() -> dict[str, Any]:
        schema = described()
        if engine.live is not None:
            operation = schema["paths"][PATH]["post"]
            operation["requestBody"]["content"]["application/json"]["example"] = (
                engine.live.champion.example
            )
        return schema

    rest.openapi = describe


async def _validation_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for this kind only"
    first = error.errors()[0]
    place, request_id = list(first["loc"]), request.state.request_id
    status = 400 if first["type"] == "json_invalid" else 422
    return JSONResponse(error_body(place, first["msg"], first["type"], request_id), status)


async def _http_problem(request: Request, error: Exception) -> Response:
    """Errors of routes; those with more than a text have it ready as `detail`."""
    assert isinstance(error, HTTPException), "registered for this kind only"
    request_id = request.state.request_id
    if isinstance(error.detail, dict):
        content = {"detail": [error.detail], "request_id": request_id}
    else:
        message = f"{request.method} {request.url.path}: {error.detail}"
        content = error_body(["path"], message, "http", request_id)
    return JSONResponse(content, error.status_code, error.headers)


def _documented(model: type[BaseModel]) -> dict[str, Any]:
    """The `requestBody` of an operation that parses its own body, with nothing left to refer to."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(definitions[node["$ref"].rsplit("/", 1)[-1]])
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(value) for value in node] if isinstance(node, list) else node

    content = {"application/json": {"schema": resolve(json.loads(json.dumps(schema)))}}
    return {"requestBody": {"required": True, "content": content}}
