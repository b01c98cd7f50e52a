"""What every request has: an id, headers with the model's version, a metric, perhaps a log line.

`Observe` does it for all routes but the predictions, which do it themselves (predict.py). Plain
ASGI: Starlette's BaseHTTPMiddleware would cost more than the prediction of a small model.
"""

import logging
import os
import re
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import logger
from .metrics import ServerMetrics
from .models import CHAMPION, ModelManager
from .settings import ServerSettings

GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
UNLOGGED_ROUTES = {"/healthz", "/readyz", "/metrics"}  # asked every few seconds by machines


class RequestMiddleware:
    """Gives each request its id, names the model version in the answer, counts and logs."""

    def __init__(
        self, app: ASGIApp, engine: ModelManager, metrics: ServerMetrics, settings: ServerSettings
    ) -> None:
        self.app, self.engine, self.metrics, self.settings = app, engine, metrics, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id = client_request_id(scope) or new_request_id()
        version = self.engine.version
        status, begun, left = 500, False, self.settings.max_body_bytes

        async def limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                text = f"is larger than {self.settings.max_body_bytes:,} bytes"
                detail = {"loc": ["body"], "msg": text, "type": "too_large"}
                raise HTTPException(413, detail)  # pyright: ignore[reportArgumentType]
            return message

        async def answer(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-model-version", version.encode()),
                ]
            await send(message)

        try:
            await self.app(scope, limited, answer)
        except Exception:
            logger.exception("unexpected error", extra={"fields": {"request_id": request_id}})
            if not begun:
                content = error_body([], "unexpected error in the server", "internal", request_id)
                await JSONResponse(content, 500)(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - started
            # An address that no route knows could be anything, and must not become a label.
            route = getattr(scope.get("route"), "path", "unknown")
            self.metrics.request(route, status, version, CHAMPION, seconds)
            log_access(self.settings, scope, route, status, seconds, request_id, version)


def log_access(
    settings: ServerSettings,
    scope: Scope,
    route: str,
    status: int,
    seconds: float,
    request_id: str,
    version: str,
) -> None:
    """A log line for a request, where one is wanted: failures of the server always have one."""
    level = logging.ERROR if status >= 500 and status not in (503, 504) else logging.DEBUG
    if settings.access_log and level < logging.INFO and route not in UNLOGGED_ROUTES:
        level = logging.INFO
    if logger.isEnabledFor(level):
        fields = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "milliseconds": round(seconds * 1000, 3),
            "request_id": request_id,
            "model_version": version,
        }
        logger.log(level, "request", extra={"fields": fields})


def error_body(loc: list[str | int], message: str, kind: str, request_id: str) -> dict[str, Any]:
    """An error in the form that FastAPI's own have."""
    return {"detail": [{"loc": loc, "msg": message, "type": kind}], "request_id": request_id}


def client_request_id(scope: Scope) -> str | None:
    """The caller's own request id, if it is harmless to log."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and GOOD_ID.fullmatch(value):
            return value.decode()
    return None


def new_request_id() -> str:
    """32 hexadecimal digits: the time in milliseconds, so that a database's index grows at its end,
    and 80 bits that nobody can guess, as whoever knows the id may send feedback."""
    return f"{int(time.time() * 1000):012x}{os.urandom(10).hex()}"
