"""Handle what all requests share: id, start time, headers, access log, errors."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from .logs import logger
from .metrics import ServerMetrics
from .settings import CoreServerSettings

SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# https://www.w3.org/TR/trace-context: version, trace, parent span, flags; later versions may go on.
_PARENT = rb"(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})"
TRACEPARENT = re.compile(rb"00-%b|(?!00|ff)[0-9a-f]{2}-%b(?:-.*)?" % (_PARENT, _PARENT))
UNLOGGED_ROUTES = {"/healthz", "/readyz", "/metrics"}  # requested by machines every few seconds
PIECE_BYTES = 2**18  # are decompressed at once; between pieces the event loop answers others
_random: list[str] = []  # random digits for new ids
Headers = list[tuple[bytes, bytes]]
RawResponse = tuple[int, Headers, bytes]  # status, headers, body


# FastAPI replaces every exception but an HTTPException that is raised while it reads a body.
class RequestError(HTTPException):
    """A request is refused; `loc` is the path to the invalid field, `kind` the error's type."""

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

    @staticmethod
    def too_large(limit: int) -> RequestError:
        return RequestError(413, ["body"], f"body is larger than {limit:,} bytes", "too_large")

    @staticmethod
    def invalid(loc: Sequence[str | int], message: str, kind: str) -> RequestError:
        """Refuse a body that pydantic rejects: 400 if it is not JSON, else 422."""
        return RequestError(400 if kind == "json_invalid" else 422, loc, message, kind)

    @staticmethod
    def no_model(problem: str | None) -> RequestError:
        headers = {"retry-after": "1"}
        return RequestError(503, [], f"no model: {problem}", "no_model", headers)

    @staticmethod
    def ending() -> RequestError:
        headers = {"retry-after": "1", "connection": "close"}
        return RequestError(503, [], "the server is ending", "ending", headers)

    @staticmethod
    def internal() -> RequestError:
        return RequestError(500, [], "internal server error", "internal")


class TraceContext(NamedTuple):
    """The trace that a request belongs to."""

    trace_id: str  # 32 hexadecimal digits
    sampled: bool  # whether the trace is recorded

    @classmethod
    def parse(cls, traceparent: bytes) -> TraceContext | None:
        """Read the header `traceparent`; None if it is invalid."""
        match = TRACEPARENT.fullmatch(traceparent)
        if match is None:
            return None
        trace_id, flags = match.group(1, 2) if match[1] else match.group(3, 4)
        return cls(trace_id.decode(), bool(int(flags, 16) & 1))


class RequestContext:
    """A request, on the predict path and through FastAPI alike."""

    __slots__ = (
        "access_log",
        "asker",
        "client_id",
        "headers",
        "metrics",
        "own_id",
        "request_id",
        "scope",
        "started",
        "trace",
    )

    def __init__(self, scope: Scope, metrics: ServerMetrics, access_log: bool) -> None:
        self.scope, self.started = scope, time.perf_counter()
        self.metrics, self.access_log = metrics, access_log
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.own_id = new_request_id()  # unique, unlike that of a client
        self.client_id = given.decode() if given and SAFE_ID.fullmatch(given) else None
        self.request_id = self.client_id or self.own_id
        self.asker = ""  # the API key, hashed; empty without keys
        traceparent = self.headers.get(b"traceparent")
        self.trace = TraceContext.parse(traceparent) if traceparent else None

    async def read_body(self, receive: Receive, settings: CoreServerSettings) -> bytes:
        """Read and decompress the body. Raises RequestError as soon as it cannot be accepted."""
        limit, seconds = settings.max_body_bytes, settings.body_seconds
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            raise RequestError.too_large(limit)
        body, more = _body_part(await receive())
        if more:
            parts = bytearray(body)
            try:
                async with asyncio.timeout(seconds):
                    while more and len(parts) <= limit:
                        body, more = _body_part(await receive())
                        parts += body
            except TimeoutError:
                message = f"body did not arrive within {seconds:g} s"
                # What still arrives of this body must not be read as the next request.
                close = {"connection": "close"}
                raise RequestError(408, ["body"], message, "body_too_slow", close) from None
            body = bytes(parts)
        if len(body) > limit:
            raise RequestError.too_large(limit)
        encoding = self.headers.get(b"content-encoding")
        return await _decompress(body, encoding, limit) if encoding else body

    def response_headers(self, version: str) -> Headers:
        """Return the headers of every response."""
        ids = (b"x-request-id", self.request_id.encode()), (b"x-model-version", version.encode())
        return [*ids, (b"x-content-type-options", b"nosniff")]

    def json_headers(self, content: bytes, version: str) -> Headers:
        """Return the headers of a JSON response."""
        return [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            *self.response_headers(version),
        ]

    def error_response(self, error: RequestError, version: str) -> RawResponse:
        """Write an error as a response."""
        content = error.body(self.request_id)
        extra = [(name.encode(), value.encode()) for name, value in (error.headers or {}).items()]
        return error.status_code, [*self.json_headers(content, version), *extra], content

    def ids(self) -> dict[str, str]:
        """Return what a log line says about its request."""
        ids = {"request_id": self.request_id}
        return {**ids, "trace_id": self.trace.trace_id} if self.trace else ids

    def finish(self, route: str, status: int, version: str, variant: str) -> None:
        """Count the request and log it."""
        seconds = time.perf_counter() - self.started
        self.metrics.request(route, status, version, variant, seconds, self.trace)
        self.log_access(route, status, version, seconds)
        if (spans := self.scope.get("spans")) is not None:  # tracing.py
            spans.outcome = route, version, variant

    def log_access(self, route: str, status: int, version: str, seconds: float) -> None:
        """Log the request if the access log is on; internal errors are always logged."""
        level = logging.ERROR if status >= 500 and status not in (503, 504) else logging.DEBUG
        if self.access_log and level == logging.DEBUG and route not in UNLOGGED_ROUTES:
            level = logging.INFO
        if logger.isEnabledFor(level):
            fields = {
                "method": self.scope["method"],
                "path": self.scope["path"],
                "status": status,
                "milliseconds": round(seconds * 1000, 3),
                **self.ids(),
                "model_version": version,
            }
            logger.log(level, "request", extra={"fields": fields})


def _body_part(message: Message) -> tuple[bytes, bool]:
    """Return a part of the body and whether more follows."""
    if message["type"] == "http.disconnect":
        raise RequestError(499, [], "the client disconnected", "disconnected")
    return message.get("body", b""), message.get("more_body", False)


async def _decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    coding = encoding.strip().lower()
    if coding == b"identity":
        return body
    if coding != b"gzip":
        message = f"unsupported content-encoding {coding.decode('latin-1')}, use gzip or none"
        raise RequestError(415, ["header", "content-encoding"], message, "content_encoding")
    decompressor = zlib.decompressobj(wbits=31)
    try:
        content = bytearray(decompressor.decompress(body, PIECE_BYTES))
        while decompressor.unconsumed_tail and len(content) <= limit:
            await asyncio.sleep(0)
            content += decompressor.decompress(decompressor.unconsumed_tail, PIECE_BYTES)
    except zlib.error as error:
        raise RequestError(400, ["body"], f"body is not valid gzip: {error}", "gzip") from None
    if len(content) > limit:
        raise RequestError.too_large(limit)
    if not decompressor.eof or decompressor.unused_data:
        fault = "data follow its end" if decompressor.eof else "it is truncated"
        raise RequestError(400, ["body"], f"body is not one whole gzip stream: {fault}", "gzip")
    return bytes(content)


def new_request_id() -> str:
    """Return 32 hexadecimal digits that start with the time, so that a database's index grows at
    its end; 80 random bits follow, as whoever knows the id may send feedback."""
    if not _random:
        digits = os.urandom(10 * 256).hex()  # at once: a system call costs more than the rest
        _random.extend(digits[start : start + 20] for start in range(0, len(digits), 20))
    return f"{int(time.time() * 1000):012x}{_random.pop()}"


def asker_of(key_hash: bytes) -> str:
    """Return a short form of an API key's hash, which tells whose request it was."""
    return key_hash.hex()[:16]
