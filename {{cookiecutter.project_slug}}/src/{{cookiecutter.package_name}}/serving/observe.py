"""What happens around every request: an id, headers, a metric and a log line.

Plain ASGI: Starlette's BaseHTTPMiddleware would cost more than the prediction of a small model.
"""

import logging
import re
import time
import uuid
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .engine import Engine
from .logs import logger
from .metrics import Metrics

GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
QUIET = {"/healthz", "/readyz", "/metrics"}  # asked every few seconds by machines


class Observe:
    """Gives each request its id, names the model version in the answer, counts and logs."""

    def __init__(self, app: ASGIApp, engine: Engine, metrics: Metrics) -> None:
        self.app, self.engine, self.metrics = app, engine, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(scope)
        state["model_version"] = self.engine.version
        status, begun = 500, False

        async def answer(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-model-version", state["model_version"].encode()),
                ]
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except Exception:
            logger.exception("unexpected error", extra={"fields": {"request_id": request_id}})
            if not begun:
                await JSONResponse(unexpected(request_id), 500)(scope, receive, answer)
        finally:
            self._record(scope, status, state, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, state: dict[str, Any], seconds: float) -> None:
        # An address that no route knows could be anything, and must not become a metric's label.
        route = getattr(scope.get("route"), "path", "unknown")
        version = state["model_version"]
        self.metrics.request(route, status, version, seconds)
        level = logging.DEBUG if route in QUIET and status < 400 else logging.INFO
        if logger.isEnabledFor(level):
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "milliseconds": round(seconds * 1000, 3),
                "request_id": state["request_id"],
                "model_version": version,
            }
            logger.log(level, "request", extra={"fields": fields})


def unexpected(request_id: str) -> dict[str, Any]:
    """The answer to a request that the server failed on; the log has the rest under this id."""
    detail = [{"loc": [], "msg": "unexpected error in the server", "type": "internal"}]
    return {"detail": detail, "request_id": request_id}


def _request_id(scope: Scope) -> str:
    """The caller's own id if it is harmless to log, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and GOOD_ID.fullmatch(value):
            return value.decode()
    return uuid.uuid4().hex
