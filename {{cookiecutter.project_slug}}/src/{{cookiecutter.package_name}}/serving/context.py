"""What all requests share: id, start time, metrics, access log and the form of errors."""

import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence

from starlette.exceptions import HTTPException
from starlette.types import Scope

from .logs import logger
from .metrics import ServerMetrics

SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
UNLOGGED_ROUTES = {"/healthz", "/readyz", "/metrics"}  # requested by machines every few seconds
Headers = list[tuple[bytes, bytes]]
RawResponse = tuple[int, Headers, bytes]  # status, headers, body


class RequestError(HTTPException):
    """A request is refused; `loc` is the path to the invalid field, `kind` the error's type.

    It is an HTTPException because FastAPI replaces all others that are raised while it reads a
    body.
    """

    def __init__(
        self,
        status: int,
        loc: Sequence[str | int],
        message: str,
        kind: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.loc, self.kind = loc, kind

    def body(self, request_id: str) -> bytes:
        """Write the error as JSON, in the form of FastAPI's own errors."""
        detail = {"loc": self.loc, "msg": self.detail, "type": self.kind}
        return json.dumps({"detail": [detail], "request_id": request_id}).encode()


class RequestContext:
    """A request, on the predict path and through FastAPI alike."""

    __slots__ = ("headers", "request_id", "scope", "started")

    def __init__(self, scope: Scope) -> None:
        self.scope, self.started = scope, time.perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        client_id = self.headers.get(b"x-request-id", b"")
        self.request_id = client_id.decode() if SAFE_ID.fullmatch(client_id) else new_request_id()

    def response_headers(self, version: str) -> Headers:
        """Make the headers of every response."""
        return [
            (b"x-request-id", self.request_id.encode()),
            (b"x-model-version", version.encode()),
        ]

    def json_headers(self, content: bytes, version: str) -> Headers:
        """Make the headers of a JSON response."""
        return [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            *self.response_headers(version),
        ]

    def error_response(self, error: RequestError, version: str) -> RawResponse:
        """Write an error as a response."""
        content = error.body(self.request_id)
        headers = self.json_headers(content, version)
        for name, value in (error.headers or {}).items():
            headers.append((name.encode(), value.encode()))
        return error.status_code, headers, content

    def finish(
        self,
        metrics: ServerMetrics,
        access_log: bool,
        route: str,
        status: int,
        version: str,
        variant: str,
    ) -> None:
        """Count the answered request and log it."""
        seconds = time.perf_counter() - self.started
        metrics.request(route, status, version, variant, seconds)
        self.log_access(access_log, route, status, version, seconds)

    def log_access(
        self, access_log: bool, route: str, status: int, version: str, seconds: float
    ) -> None:
        """Log the request if `access_log` is set; internal errors are always logged."""
        level = logging.ERROR if status >= 500 and status not in (503, 504) else logging.DEBUG
        if access_log and level == logging.DEBUG and route not in UNLOGGED_ROUTES:
            level = logging.INFO
        if logger.isEnabledFor(level):
            fields = {
                "method": self.scope["method"],
                "path": self.scope["path"],
                "status": status,
                "milliseconds": round(seconds * 1000, 3),
                "request_id": self.request_id,
                "model_version": version,
            }
            logger.log(level, "request", extra={"fields": fields})


def new_request_id() -> str:
    """Make an id of 32 hexadecimal digits.

    First the time in milliseconds, so that a database's index grows at its end, then 80 random
    bits: whoever knows the id may send feedback, so nobody must be able to guess it.
    """
    return f"{int(time.time() * 1000):012x}{os.urandom(10).hex()}"


def too_large(limit: int) -> RequestError:
    """Refuse a body of more than `limit` bytes."""
    return RequestError(413, ["body"], f"body is larger than {limit:,} bytes", "too_large")


def invalid_request(loc: Sequence[str | int], message: str, kind: str) -> RequestError:
    """Refuse a body that pydantic finds invalid: 400 if it is not JSON, else 422."""
    return RequestError(400 if kind == "json_invalid" else 422, loc, message, kind)


def no_model(problem: str | None) -> RequestError:
    """Refuse a request because no model is loaded."""
    return RequestError(503, [], f"no model: {problem}", "no_model", {"retry-after": "1"})


def internal_error() -> RequestError:
    """Report a fault of the server without any detail of it."""
    return RequestError(500, [], "internal server error", "internal")
