"""The HTTP server: FastAPI's routing and documentation around ONNX Runtime."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
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
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..seam import InvalidItem
from ..task.contract import Item, Prediction
from .engine import Engine
from .metrics import Metrics
from .observe import Observe
from .settings import Serving

MAX_ITEMS = 256


class PredictRequest(BaseModel):
    """One or many items to predict."""

    model_config = ConfigDict(extra="forbid")

    items: list[Item] = Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)


class PredictResponse(BaseModel):
    """One prediction per item, in the same order, and which model made them."""

    request_id: str
    model: str
    model_version: str
    predictions: list[Prediction]


class Problem(BaseModel):
    """What was wrong: `loc` is the way to the field."""

    class Detail(BaseModel):
        loc: list[str | int]
        msg: str
        type: str

    detail: list[Detail]
    request_id: str


class ModelInfo(BaseModel):
    """A model that answers."""

    role: str
    name: str
    version: str
    task: str
    created_at: str
    loaded_at: str
    metrics: dict[str, float]
    baseline_metrics: dict[str, dict[str, float]]


class Models(BaseModel):
    """The models that answer, and why the newest deployment is not among them, if so."""

    models: list[ModelInfo]
    problem: str | None


class Health(BaseModel):
    """Whether the server lives, or is ready to answer; `reason` when something is amiss."""

    status: str
    model_version: str | None = None
    reason: str | None = None


request_adapter = TypeAdapter(PredictRequest)
response_adapter = TypeAdapter(PredictResponse)
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    413: {"model": Problem, "description": "The body is too large"},
    415: {"model": Problem, "description": "The body is not announced as application/json"},
    422: {"model": Problem, "description": "A field is wrong; the answer names it"},
    503: {"model": Problem, "description": "No model is deployed"},
}


def create_app(settings: Serving) -> FastAPI:
    """The application; it starts with or without a deployment."""
    metrics = Metrics()
    engine = Engine(settings.deployment_dir, settings.reload_seconds, metrics)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(engine.refresh)
        watcher = asyncio.create_task(engine.watch())
        yield
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
        engine.close()

    app = FastAPI(
        title="Prediction service",
        description=f"Answers with the model in `{settings.deployment_dir}`.",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page fetches its scripts from elsewhere; ours brings them
        redoc_url=None,
    )
    described = app.openapi

    def describe() -> dict[str, Any]:
        schema = described()
        if engine.served is not None:
            operation = schema["paths"]["/v1/predict"]["post"]
            operation["requestBody"]["content"]["application/json"]["example"] = (
                engine.served.example
            )
        return schema

    app.openapi = describe  # with an example that the model which answers now can take
    app.mount("/swagger", StaticFiles(packages=[("fastapi_swagger", "resources")]))
    app.add_middleware(Observe, engine=engine, metrics=metrics)
    app.add_exception_handler(HTTPException, _http_problem)

    # The body is read and parsed here and not by FastAPI: pydantic goes from bytes to checked
    # items in one step. The schema below is therefore given to the documentation by hand.
    @app.post(
        "/v1/predict",
        response_model=PredictResponse,
        responses=ERRORS,
        openapi_extra=_documented(PredictRequest),
        tags=["predictions"],
        summary="Predict one or many items",
    )
    async def predict(request: Request) -> Response:
        """One prediction per item, in the same order; the example is from the model's own data."""
        served = engine.served
        if served is None:
            return problem(request, 503, [], f"no model: {engine.problem}", "no_model")
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            message = f"is {media or 'missing'}, must be application/json"
            return problem(request, 415, ["header", "content-type"], message, "content_type")
        try:
            body = await _read(request, settings.max_body_bytes)
            if body is None:
                message = f"is larger than {settings.max_body_bytes:,} bytes"
                return problem(request, 413, ["body"], message, "too_large")
            wanted = request_adapter.validate_json(body)
            predictions = await engine.predict(served, wanted.items)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it; nginx's number for the logs
        except ValidationError as error:
            return _invalid(request, error)
        except InvalidItem as error:
            place: list[str | int] = ["body", "items", error.index, error.field]
            return problem(request, 422, place, str(error), "invalid_item")
        version = served.bundle.version
        metrics.predictions(version).inc(len(predictions))
        request.state.model_version = version
        answer = PredictResponse(
            request_id=request.state.request_id,
            model=served.bundle.name,
            model_version=version,
            predictions=predictions,
        )
        return Response(response_adapter.dump_json(answer), media_type="application/json")

    @app.get("/v1/models", tags=["models"], summary="Which models answer")
    async def models() -> Models:
        """The models that answer, with their quality as measured after training."""
        found = []
        if (served := engine.served) is not None:
            manifest = {name: served.bundle.manifest.get(name) for name in ModelInfo.model_fields}
            own = {"role": "champion", "loaded_at": served.loaded_at}
            found = [ModelInfo.model_validate({**manifest, **own})]
        return Models(models=found, problem=engine.problem)

    @app.get("/healthz", tags=["operation"], summary="Whether the process lives")
    async def healthz() -> Health:
        """200 as long as the process answers at all."""
        return Health(status="alive")

    @app.get(
        "/readyz",
        tags=["operation"],
        summary="Whether a model answers",
        response_model=Health,
        responses={503: {"model": Health, "description": "No model: the reason says why"}},
    )
    async def readyz() -> JSONResponse:
        """200 when a model is loaded and has answered its own example."""
        if engine.served is None:
            state = Health(status="not ready", reason=engine.problem)
            return JSONResponse(state.model_dump(), 503)
        state = Health(status="ready", model_version=engine.version, reason=engine.problem)
        return JSONResponse(state.model_dump())

    @app.get(
        "/metrics",
        tags=["operation"],
        summary="Metrics for Prometheus",
        response_class=PlainTextResponse,
    )
    async def prometheus() -> Response:
        """Requests, errors, latency and items by model version, in Prometheus' text format."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(  # addresses are relative, so a proxy may add a prefix
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="swagger/swagger-ui-bundle.js",
            swagger_css_url="swagger/swagger-ui.css",
            swagger_favicon_url="swagger/favicon-32x32.png",
        )

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")

    return app


def problem(
    request: Request, status: int, loc: list[str | int], message: str, kind: str
) -> JSONResponse:
    """An error in the form that FastAPI's own have."""
    detail = [{"loc": loc, "msg": message, "type": kind}]
    return JSONResponse({"detail": detail, "request_id": request.state.request_id}, status)


def _invalid(request: Request, error: ValidationError) -> JSONResponse:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    status = 400 if first["type"] == "json_invalid" else 422
    return problem(request, status, ["body", *first["loc"]], first["msg"], first["type"])


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for this kind only"
    path = request.url.path
    message = f"{request.method} {path}: {error.detail}"
    answer = problem(request, error.status_code, ["path"], message, "http")
    answer.headers.update(error.headers or {})
    return answer


async def _read(request: Request, limit: int) -> bytes | None:
    """The body, or None as soon as it is known to be longer than `limit` bytes."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


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
