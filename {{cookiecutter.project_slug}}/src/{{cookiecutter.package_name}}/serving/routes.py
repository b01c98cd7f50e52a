"""The routes of the API, and FastAPI's errors in the form of all others."""

import asyncio
import os
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.exceptions import HTTPException

from .context import RequestContext, RequestError
from .drain import Drain
from .models import CHALLENGER, CHAMPION
from .predict import PATH, Predict
from .puller import PullStatus
from .schemas import ERRORS, Health, ModelInfo, ModelsResponse, PredictResponse, request_body


def add_prediction_route(api: FastAPI, predict: Predict) -> None:
    """Document `POST /v1/predict`, which bypasses FastAPI's router (middleware.py)."""

    @api.post(
        PATH,
        response_model=PredictResponse,
        responses=ERRORS,
        openapi_extra=request_body(predict.request_schema),
        tags=["predictions"],
        summary="Predict one or many items",
    )
    async def predictions(request: Request) -> Response:
        """One prediction per item, in the same order. The example works with the loaded model."""
        context = RequestContext(request.scope, predict.metrics, predict.settings.access_log)
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


def add_operation_routes(api: FastAPI, predict: Predict, drain: Drain) -> None:
    """Add the loaded models, health and metrics."""
    models, metrics = predict.models, predict.metrics
    pulled = PullStatus(predict.settings)
    metrics.register(pulled)

    @api.get(
        "/v1/models", responses={401: ERRORS[401]}, tags=["models"], summary="List loaded models"
    )
    async def list_models() -> ModelsResponse:
        """The loaded models, with their metrics as measured after training."""
        test = models.active.deployment.challenger if models.active else None
        shares: dict[str, float] = {}
        if test is not None and test.mode == "split":
            shares = {CHAMPION: 1 - test.share, CHALLENGER: test.share}
        infos = [
            ModelInfo(
                **model.bundle.manifest.model_dump(include=set(ModelInfo.model_fields)),
                variant=model.variant,
                loaded_at=model.loaded_at,
                share=shares.get(model.variant),
                engine=model.engine,
                microseconds_per_item=model.microseconds,
            )
            for model in models.loaded()
        ]
        return ModelsResponse(
            models=infos, problem=models.problem or pulled.problem, worker=os.getpid()
        )

    @api.get("/healthz", tags=["operation"], summary="Liveness")
    async def healthz() -> Health:
        """200 as long as the process answers at all."""
        return Health(status="alive")

    not_ready = {"model": Health, "description": "No model, or the server is ending; see reason"}

    @api.get("/readyz", tags=["operation"], summary="Readiness", responses={503: not_ready})
    async def readyz(response: Response) -> Health:
        """200 once a model is loaded and has predicted its own example."""
        if models.active is None:
            response.status_code = 503
            return Health(status="not ready", reason=pulled.problem or models.problem)
        if drain.deadline is not None:
            response.status_code = 503
            return Health(status="not ready", reason="the server is ending")
        reason = models.problem or pulled.problem or predict.observer.problem
        return Health(status="ready", model_version=models.version, reason=reason)

    if predict.settings.metrics == "off":
        return
    summary = "Metrics for Prometheus"

    @api.get(
        "/metrics",
        tags=["operation"],
        summary=summary,
        response_class=PlainTextResponse,
        responses={401: ERRORS[401]},
    )
    async def prometheus(request: Request) -> Response:
        """All metrics, in Prometheus' text format, or as OpenMetrics with exemplars if accepted."""
        as_openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        metrics.in_progress.set(predict.in_progress)
        others = await asyncio.to_thread(predict.observer.update_metrics)
        content = await asyncio.to_thread(metrics.render, others, as_openmetrics)
        media_type = openmetrics.CONTENT_TYPE_LATEST if as_openmetrics else CONTENT_TYPE_LATEST
        return Response(content, media_type=media_type)


def add_docs_routes(api: FastAPI) -> None:
    """Add the documentation page, which loads nothing from elsewhere."""
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
    """Give all errors one form."""

    async def handle(request: Request, error: Exception) -> Response:
        match error:
            case RequestError():
                pass
            case RequestValidationError():
                first = error.errors()[0]
                error = RequestError.invalid(list(first["loc"]), first["msg"], first["type"])
            case HTTPException():
                message = f"{request.method} {request.url.path}: {error.detail}"
                error = RequestError(error.status_code, ["path"], message, "http", error.headers)
            case _:
                error = RequestError.internal()
        content = error.body(request.state.request_id)
        return Response(content, error.status_code, error.headers, "application/json")

    for kind in (HTTPException, RequestValidationError, Exception):
        api.add_exception_handler(kind, handle)
