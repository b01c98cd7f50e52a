"""OpenTelemetry: a span for each request, with one for its time in the queue and one for the model.

OpenTelemetry's own variables configure it (https://opentelemetry.io/docs/specs/otel/configuration/).
Unless they ask for traces, the server imports no SDK and runs none of this.
"""

import importlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from opentelemetry import propagate
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider, set_span_in_context
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .context import UNLOGGED_ROUTES
from .logs import logger
from .models import CHAMPION
from .predict import PATH, PredictionEvent

if TYPE_CHECKING:
    from opentelemetry.sdk import trace as sdk

PROTOCOLS = {"http/protobuf": "http", "grpc": "grpc"}  # of OTLP, and the exporters' modules
STOP_SECONDS = 2.0
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def requested(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment says where to send traces, or that the default is meant."""
    exporter = env.get("OTEL_TRACES_EXPORTER", "")
    if exporter == "none" or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return bool(exporter or any(env.get(name) for name in ENDPOINTS))


def create_provider(env: Mapping[str, str] = os.environ) -> "sdk.TracerProvider | None":
    """Create what sends traces; None, with a warning, if it cannot be.

    No error: some platforms set the variables for every container.
    """
    exporter = env.get("OTEL_TRACES_EXPORTER", "otlp") or "otlp"
    protocol = env.get("OTEL_EXPORTER_OTLP_PROTOCOL", "") or "http/protobuf"
    protocol = env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "") or protocol
    if exporter != "otlp" or protocol not in PROTOCOLS:
        reason = f"exporter {exporter}, protocol {protocol}: only otlp, by {' or '.join(PROTOCOLS)}"
        logger.warning("no traces are sent", extra={"fields": {"reason": reason}})
        return None
    name = f"opentelemetry.exporter.otlp.proto.{PROTOCOLS[protocol]}.trace_exporter"
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter_class = importlib.import_module(name).OTLPSpanExporter
    except ImportError as error:
        package = f"opentelemetry-exporter-otlp-proto-{PROTOCOLS[protocol]}"
        reason = f"{error}; install {package}, the extra `otel` has the one for HTTP"
        logger.warning("no traces are sent", extra={"fields": {"reason": reason}})
        return None
    resource = Resource({"host.name": socket.gethostname(), "process.pid": os.getpid()})
    resource = resource.merge(Resource.create())
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: __name__.partition(".")[0]}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter_class()))
    return provider


def stop(provider: "sdk.TracerProvider", seconds: float) -> None:
    """Send what is left, for a moment and at most `seconds`: the collector may not answer."""
    thread = threading.Thread(target=provider.shutdown, daemon=True)
    thread.start()
    thread.join(min(seconds, STOP_SECONDS))


class RequestSpans:
    """What the server tells about a request; `spans` in its scope."""

    __slots__ = ("event", "outcome", "shadow")

    def __init__(self, shadow: Callable[[PredictionEvent], None]) -> None:
        self.shadow = shadow  # takes the shadow's prediction, once the caller has its response
        self.event: PredictionEvent | None = None  # of a prediction that succeeded
        self.outcome = "unknown", "none", CHAMPION  # route, model version and variant


class HeaderGetter(Getter[dict[bytes, bytes]]):
    """Give OpenTelemetry's propagators the headers of a request."""

    def get(self, carrier: dict[bytes, bytes], key: str) -> list[str] | None:
        value = carrier.get(key.lower().encode())
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: dict[bytes, bytes]) -> list[str]:
        return [name.decode("latin-1") for name in carrier]


class TracingMiddleware:
    """Trace all requests but those of machines that ask every few seconds.

    The trace goes on inside as the header `traceparent`, also if none came in: so log lines, rows
    and exemplars name it in the same way, with OpenTelemetry and without.
    """

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self.app = app
        self._tracer = provider.get_tracer("serving")
        self._getter = HeaderGetter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # 1. Begin, and hand the trace on.
        started, method = (time.time_ns(), time.perf_counter()), scope["method"]
        attributes = {
            "http.request.method": method,
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
        }
        parent = propagate.extract(dict(scope["headers"]), getter=self._getter)
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, attributes)
        own = span.get_span_context()
        ids = own.trace_id, own.span_id, own.trace_flags
        headers = [*scope["headers"], (b"traceparent", b"00-%032x-%016x-%02x" % ids)]

        def add_shadow(event: PredictionEvent) -> None:
            self._add_steps(span, event, started, "shadow ")

        spans, status = RequestSpans(add_shadow), 500

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # 2. Answer, and say what happened.
        try:
            await self.app({**scope, "headers": headers, "spans": spans}, receive, respond)
        finally:
            if span.is_recording() and spans.outcome[0] not in UNLOGGED_ROUTES:
                self._describe(span, method, status, spans, started)
                span.end()  # only what has ended is sent

    def _describe(
        self,
        span: Span,
        method: str,
        status: int,
        spans: RequestSpans,
        started: tuple[int, float],
    ) -> None:
        """Add what is known at the end; the parts' times were measured by `time.perf_counter`."""
        (route, version, variant), event = spans.outcome, spans.event
        if event is not None:
            route, version, variant = PATH, event.model.version, event.model.variant
        model = {"model.version": version, "model.variant": variant}
        span.set_attributes({"http.response.status_code": status, **model})
        if route != "unknown":
            span.update_name(f"{method} {route}")
            span.set_attribute("http.route", route)
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(StatusCode.ERROR)
        if event is None:
            return
        items = event.result.stop - event.result.start
        span.set_attributes({"request.id": event.request_id, "request.items": items})
        self._add_steps(span, event, started)

    def _add_steps(
        self, span: Span, event: PredictionEvent, started: tuple[int, float], prefix: str = ""
    ) -> None:
        """Add what the model did for a request, below its span."""
        parent, result, (wall, clock) = set_span_in_context(span), event.result, started
        arrived, began, ended = (
            wall + int((seconds - clock) * 1e9)
            for seconds in (
                result.started - result.queued,
                result.started,
                result.started + result.computed,
            )
        )
        self._tracer.start_span(f"{prefix}queue", parent, start_time=arrived).end(began)
        batch = {
            "model.version": event.model.version,
            "model.variant": event.model.variant,
            "request.items": result.stop - result.start,
            "batch.items": result.batch.items,
        }
        run = self._tracer.start_span(
            f"{prefix}model run", parent, attributes=batch, start_time=began
        )
        run.end(ended)
