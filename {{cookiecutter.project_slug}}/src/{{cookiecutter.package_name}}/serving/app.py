"""The ASGI application, composed of its parts."""

import asyncio
import gc
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..config import load_settings
from . import routes, tracing
from .access import Access
from .drain import DaemonThreads, Drain, end_with_supervisor
from .logs import configure_logs
from .metrics import ServerMetrics
from .middleware import RequestMiddleware
from .models import ModelManager
from .page import add_page_routes
from .platforms import PlatformRoutes, add_protocol2_routes
from .predict import Predict
from .settings import SWITCH_SECONDS
from .wiring import ServerSettings, create_observer


def from_environment() -> ASGIApp:
    """Create the application of a worker, with the settings of the environment."""
    settings = load_settings(ServerSettings)
    # uvicorn's supervisor names its workers SpawnProcess-1, …; without it this is the server.
    _, _, number = multiprocessing.current_process().name.partition("-")
    configure_logs(settings.log_level, f"worker-{number}" if number else "server")
    end_with_supervisor()
    sys.setswitchinterval(SWITCH_SECONDS)
    return create_app(settings)


def create_app(settings: ServerSettings) -> ASGIApp:
    """Create the application; it starts with or without a deployment."""
    # 1. Parts
    metrics = ServerMetrics()
    models = ModelManager(settings, metrics)
    observer = create_observer(settings, models, metrics)
    predict = Predict(settings, models, metrics, observer)
    access, drain = Access(settings), Drain(settings)
    provider = tracing.create_provider() if tracing.requested() else None

    # 2. Start and end
    @asynccontextmanager
    async def lifespan(_api: FastAPI) -> AsyncIterator[dict[str, Any]]:
        drain.handle_signals()
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        await asyncio.to_thread(models.refresh)
        observer.start()
        gc.freeze()  # what is loaded stays: later collections skip it
        gc.enable()
        models.start()
        watch = asyncio.create_task(access.watch())
        yield {"settings": settings, "metrics": metrics}  # for protocol.py
        watch.cancel()
        predict.parser.close()
        models.stop()
        await observer.stop(drain.seconds_left())
        if provider is not None:
            tracing.stop(provider, drain.seconds_left())

    # 3. The API
    api = FastAPI(
        title="Prediction service",
        description=f"Serves the models in `{settings.deployment_dir}`.",
        version="1",
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,  # FastAPI's own page fetches its scripts from the internet
        redoc_url=None,
        telemetry={"tracing": False},  # tracing.py has a span for every request already
    )
    routes.add_prediction_route(api, predict)
    observer.add_routes(api)
    routes.add_operation_routes(api, predict, drain)
    if settings.page:  # before the docs, to which `/` redirects otherwise
        add_page_routes(api, models)
    if "kserve" in settings.platforms:
        add_protocol2_routes(api, predict)
    if settings.docs:
        routes.add_docs_routes(api)
    routes.add_error_handlers(api)

    # 4. Middleware
    trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")  # as uvicorn names it
    proxied = ProxyHeadersMiddleware(cast(Any, api), trusted)
    app: ASGIApp = RequestMiddleware(cast(ASGIApp, proxied), predict, access)
    if settings.platforms:
        app = PlatformRoutes(app, predict)
    if settings.cors_origins:
        app = CORSMiddleware(
            app, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    return tracing.TracingMiddleware(app, provider) if provider else app
