"""The routes that FastAPI answers, and its errors in the form of all others."""

import asyncio
import os
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
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from .context import RequestContext, RequestError, internal_error, invalid_request
from .metrics import ServerMetrics
from .models import CHAMPION, ModelManager
from .predict import PATH, Predict, PredictionObserver
from .schemas import (
    ERRORS,
    Health,
    ModelInfo,
    ModelsResponse,
    PredictResponse,
    request_body,
)


def add_prediction_route(api: FastAPI, predict: Predict, request_schema: type[BaseModel]) -> None:
    """Document `POST /v1/predict`, which is answered before FastAPI's router (middleware.py)."""

    @api.post(
        PATH,
        response_model=PredictResponse,
        responses=ERRORS,
        openapi_extra=request_body(request_schema),
        tags=["predictions"],
        summary="Predict one or many items",
    )
    async def predictions(request: Request) -> Response:
        """One prediction per item, in the same order. The example works with the loaded model."""
        context = RequestContext(request.scope)
        status, headers, body = await predict.respond(context, request.receive)
        response = Response(body, status)
        response.raw_headers = headers
        return response

    generate = api.openapi

    def with_example() -> dict[str, Any]:
        schema = generate()
        if predict.models.active is not None:
            body = schema["paths"][PATH]["post"]["requestBody"]["content"]["application/json"]
            body["example"] = predict.models.active.champion.example
        return schema

    api.openapi = with_example


def add_model_routes(api: FastAPI, models: ModelManager) -> None:
    """Add the routes about models and health."""

    @api.get(
        "/v1/models", responses={401: ERRORS[401]}, tags=["models"], summary="List loaded models"
    )
    async def list_models() -> ModelsResponse:
        """The loaded models, with their metrics as measured after training."""
        test = models.active.deployment.challenger if models.active else None
        infos = []
        for model in models.loaded():
            manifest = model.bundle.manifest.model_dump(include=set(ModelInfo.model_fields))
            share = None
            if test is not None and test.mode == "split":
                share = 1 - test.share if model.variant == CHAMPION else test.share
            state = {
                "variant": model.variant,
                "loaded_at": model.loaded_at,
                "share": share,
                "engine": model.engine,
                "microseconds_per_item": model.microseconds,
            }
            infos.append(ModelInfo.model_validate({**manifest, **state}))
        return ModelsResponse(models=infos, problem=models.problem, worker=os.getpid())

    @api.get("/healthz", tags=["operation"], summary="Liveness")
    async def healthz() -> Health:
        """200 as long as the process answers at all."""
        return Health(status="alive")

    @api.get(
        "/readyz",
        tags=["operation"],
        summary="Readiness",
        response_model=Health,
        responses={503: {"model": Health, "description": "No model is loaded; see the reason"}},
    )
    async def readyz() -> JSONResponse:
        """200 once a model is loaded and has predicted its own example."""
        if models.active is None:
            health = Health(status="not ready", reason=models.problem)
            return JSONResponse(health.model_dump(), 503)
        health = Health(status="ready", model_version=models.version, reason=models.problem)
        return JSONResponse(health.model_dump())


def add_metrics_route(
    api: FastAPI, predict: Predict, metrics: ServerMetrics, observer: PredictionObserver
) -> None:
    """Add `GET /metrics`."""

    def render() -> bytes:
        observer.update_metrics()
        return metrics.render()

    @api.get(
        "/metrics",
        tags=["operation"],
        summary="Metrics for Prometheus",
        response_class=PlainTextResponse,
    )
    async def prometheus() -> Response:
        """All metrics, in Prometheus' text format."""
        metrics.in_progress.set(predict.in_progress)
        return Response(await asyncio.to_thread(render), media_type=CONTENT_TYPE_LATEST)


def add_docs_routes(api: FastAPI) -> None:
    """Add the page of the documentation, without anything fetched from elsewhere."""
    api.mount("/swagger", StaticFiles(packages=[("fastapi_swagger", "resources")]))

    @api.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(  # relative addresses, so that a proxy may add a prefix
            openapi_url="openapi.json",
            title=api.title,
            swagger_js_url="swagger/swagger-ui-bundle.js",
            swagger_css_url="swagger/swagger-ui.css",
            swagger_favicon_url="swagger/favicon-32x32.png",
        )

    @api.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")


def add_error_handlers(api: FastAPI) -> None:
    """Answer all errors in one form."""

    async def handle(request: Request, error: Exception) -> Response:
        match error:
            case RequestError():
                pass
            case RequestValidationError():
                first = error.errors()[0]
                error = invalid_request(list(first["loc"]), first["msg"], first["type"])
            case HTTPException():
                message = f"{request.method} {request.url.path}: {error.detail}"
                error = RequestError(error.status_code, ["path"], message, "http", error.headers)
            case _:
                error = internal_error()
        content = error.body(request.state.request_id)
        return Response(content, error.status_code, error.headers, "application/json")

    for kind in (HTTPException, RequestValidationError, Exception):
        api.add_exception_handler(kind, handle)
