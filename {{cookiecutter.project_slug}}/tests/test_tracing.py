"""Traces: one from the caller to the model's run, found again in log lines and metrics."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle.load import Bundle
from {{ cookiecutter.package_name }}.serving import tracing
from {{ cookiecutter.package_name }}.serving.context import TraceContext
from {{ cookiecutter.package_name }}.serving.logs import Occasional

from .servers import challenge, install_copy, running, started, until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"
OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0"}


class Receiver(ThreadingHTTPServer):
    """A collector: it receives OTLP over HTTP and keeps the spans with their resource."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.resource: dict[str, Any] = {}
        super().__init__(("127.0.0.1", 0), ReceiverHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class ReceiverHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resource |= values(group.resource.attributes)
            for scope in group.scope_spans:
                self.server.spans |= {span.name: span for span in scope.spans}
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


def values(attributes: Any) -> dict[str, Any]:
    """The attributes of a span as OTLP has it."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A collector that the environment names."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="without the extra otel")
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "numbers")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        yield receiver
        receiver.shutdown()
        thread.join()


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where the spans of a server in this process go."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(tracing, "create_provider", lambda: provider)
    return exporter


@pytest.fixture
def traced(
    memory: InMemorySpanExporter, deployment: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[TestClient]:
    caplog.set_level("INFO", "serving")
    with started(deployment, access_log=True) as client:
        yield client


def test_one_trace_leads_from_the_caller_to_the_models_run_and_into_the_log(
    receiver: Receiver, deployment: Path, example: dict[str, Any]
) -> None:
    with running(deployment, access_log=True) as server:
        answer = server.send("/v1/predict", example, traceparent=TRACEPARENT)
        server.process.send_signal(signal.SIGTERM)  # the end sends what is left
        assert server.process.wait(120) == 0
        (line,) = [line for line in server.lines() if line["message"] == "request"]
    assert line["trace_id"] == TRACE
    request, queue, run = (
        receiver.spans[name] for name in ("POST /v1/predict", "queue", "model run")
    )
    assert {span.trace_id.hex() for span in (request, queue, run)} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert queue.parent_span_id == run.parent_span_id == request.span_id
    start, arrived, began, ended = (
        request.start_time_unix_nano,
        queue.start_time_unix_nano,
        run.start_time_unix_nano,
        run.end_time_unix_nano,
    )
    assert start <= arrived <= queue.end_time_unix_nano == began
    assert began < ended <= request.end_time_unix_nano
    version, items = answer.headers["x-model-version"], len(example["items"])
    model = {"model.version": version, "model.variant": "champion", "request.items": items}
    expected = {
        **model,
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "request.id": answer.headers["x-prediction-id"],
    }
    assert expected.items() <= values(request.attributes).items()
    assert values(run.attributes) == {**model, "batch.items": items}
    assert receiver.resource["service.name"] == "numbers"
    assert receiver.resource["deployment.environment.name"] == "test"
    assert receiver.resource["process.pid"] == server.process.pid


def test_a_shadow_s_run_is_in_the_trace_of_its_request(
    memory: InMemorySpanExporter, deployment: Path, example: dict[str, Any]
) -> None:
    challenge(deployment, install_copy(deployment, "shadow-1"), 1.0, "shadow")
    with started(deployment) as client:
        client.post("/v1/predict", json=example)
        until(lambda: len(memory.get_finished_spans()) == 5)
    spans = {span.name: span for span in memory.get_finished_spans()}
    run, request = spans["shadow model run"], spans["POST /v1/predict"]
    assert "shadow queue" in spans
    assert run.parent is not None
    assert request.context is not None
    assert run.parent.span_id == request.context.span_id
    attributes = dict(run.attributes or {})
    assert (attributes["model.version"], attributes["model.variant"]) == ("shadow-1", "shadow")


def test_request_without_a_trace_begins_one(
    traced: TestClient, memory: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    traced.get("/v1/models")
    (span,) = memory.get_finished_spans()
    assert span.parent is None
    assert span.name == "GET /v1/models"
    assert span.context is not None
    (record,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert vars(record)["fields"]["trace_id"] == f"{span.context.trace_id:032x}"


def test_failures_are_marked_and_refusals_are_not(
    traced: TestClient,
    memory: InMemorySpanExporter,
    example: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    traced.post("/v1/predict", json={})
    traced.get("/nowhere")
    monkeypatch.setattr(Bundle, "run", fail)
    traced.post("/v1/predict", json=example)
    spans = memory.get_finished_spans()
    assert [span.name for span in spans] == ["POST /v1/predict", "GET", "POST /v1/predict"]
    statuses = [dict(span.attributes or {})["http.response.status_code"] for span in spans]
    assert statuses == [422, 404, 500]
    codes = [span.status.status_code for span in spans]
    assert codes == [StatusCode.UNSET, StatusCode.UNSET, StatusCode.ERROR]
    assert dict(spans[2].attributes or {})["error.type"] == "500"
    assert dict(spans[2].attributes or {})["model.variant"] == "champion"


def test_probes_and_metrics_are_not_traced(
    traced: TestClient, memory: InMemorySpanExporter
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert traced.get(path).status_code == 200
    assert memory.get_finished_spans() == ()


def test_predictions_for_a_platform_are_traced_and_its_probes_are_not(
    memory: InMemorySpanExporter, deployment: Path, example: dict[str, Any]
) -> None:
    with started(deployment, platforms=["sagemaker"]) as client:
        assert client.get("/ping").status_code == 200
        assert client.post("/invocations", json=example).status_code == 200
        spans = memory.get_finished_spans()
    assert [span.name for span in spans] == ["queue", "model run", "POST /v1/predict"]
    assert dict(spans[2].attributes or {})["url.path"] == "/invocations"


def test_trace_that_the_caller_does_not_record_is_not_recorded_but_logged(
    traced: TestClient,
    memory: InMemorySpanExporter,
    example: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    traced.post("/v1/predict", json=example, headers={"traceparent": UNSAMPLED})
    assert memory.get_finished_spans() == ()
    (record,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert vars(record)["fields"]["trace_id"] == TRACE
    assert TRACE not in traced.get("/metrics", headers=OPENMETRICS).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRACEPARENT, (TRACE, True)),
        (UNSAMPLED, (TRACE, False)),
        (f"cc-{TRACE}-{PARENT}-03-of-a-later-version", (TRACE, True)),
        (f"{TRACEPARENT}-more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (TRACEPARENT.upper(), None),
        ("00", None),
    ],
)
def test_traceparent_is_read_as_the_standard_says(text: str, expected: object) -> None:
    assert TraceContext.parse(text.encode()) == expected


def test_without_opentelemetry_log_lines_name_trace_host_and_process(
    deployment: Path, example: dict[str, Any]
) -> None:
    with running(deployment, access_log=True, workers=2) as server:
        server.send("/v1/predict", example, traceparent=TRACEPARENT)
        server.send("/v1/predict", example, traceparent="invalid")
        server.send("/v1/predict", {}, traceparent=TRACEPARENT)
        lines = until(lambda: _requests(server.lines(), 3))
        assert [line.get("trace_id") for line in lines] == [TRACE, None, TRACE]
        until(lambda: {"worker-1", "worker-2"} <= {line["process"] for line in server.lines()})
        every = server.lines()
        assert {line["host"] for line in every} == {socket.gethostname()}
        pids = {line["process"]: line["pid"] for line in every}
        assert pids["server"] == server.process.pid
        assert len(set(pids.values())) == len(pids)

        # Exemplars, with several workers: those of the one that is asked.
        def exemplar() -> str:
            text = server.send("/metrics", **OPENMETRICS).text
            return text if TRACE in text else ""

        assert_openmetrics(until(exemplar))


def _requests(lines: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    found = [line for line in lines if line["message"] == "request"]
    return found if len(found) == count else []


def test_openmetrics_has_an_exemplar_in_the_bucket_of_its_request(
    deployment: Path, example: dict[str, Any]
) -> None:
    with started(deployment) as client:
        client.post("/v1/predict", json=example, headers={"traceparent": TRACEPARENT})
        answer = client.get("/metrics", headers=OPENMETRICS)
        plain = client.get("/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert_openmetrics(answer.text)
    assert plain.headers["content-type"].startswith("text/plain")
    assert TRACE not in plain.text
    names = [line.partition("{")[0] for line in plain.text.splitlines() if line[0] != "#"]
    for name in names:  # dashboards and alerts read the same series from both
        assert name.partition(" ")[0] in answer.text


def assert_openmetrics(text: str) -> None:
    """Check that it is valid and that the request's trace is in one bucket, the right one."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["http_request_seconds"].samples
    found = [sample for sample in samples if sample.exemplar is not None]
    predictions = [sample for sample in found if sample.labels["route"] == "/v1/predict"]
    assert predictions
    for sample in predictions:
        assert sample.exemplar is not None
        assert sample.exemplar.labels == {"trace_id": TRACE}
        assert sample.exemplar.value <= float(sample.labels["le"])
        lower = [
            float(other.labels["le"])
            for other in samples
            if other.name == sample.name and float(other.labels["le"]) < float(sample.labels["le"])
        ]
        assert sample.exemplar.value > max(lower, default=0)


def test_without_traces_nothing_of_the_sdk_is_imported(deployment: Path) -> None:
    package = cli.__package__
    code = (
        "import sys\n"
        f"from {package}.serving.app import from_environment\n"
        f"from {package}.serving.middleware import RequestMiddleware\n"
        "assert isinstance(from_environment(), RequestMiddleware)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]"
    )
    quiet = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}
    for variables in ({}, quiet):
        env = {**os.environ, "APP_DEPLOYMENT_DIR": str(deployment), **variables}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "numbers"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, False),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, False),
    ],
    ids=str,
)
def test_traces_are_off_until_they_are_asked_for(variables: dict[str, str], expected: bool) -> None:
    assert tracing.requested(variables) is expected


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "exporter zipkin"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "protocol http/json"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "proto-grpc"),
    ],
    ids=str,
)
def test_traces_that_cannot_be_sent_are_a_warning_that_says_why(
    variables: dict[str, str],
    reason: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    assert tracing.create_provider(variables) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert reason in json.dumps(vars(record)["fields"])


def test_end_does_not_wait_for_a_collector_that_does_not_answer() -> None:
    asked: Future[None] = Future()
    answer = threading.Event()

    class Hanging(SpanExporter):
        def export(self, spans: Any) -> Any:
            asked.set_result(None)
            answer.wait()

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Hanging()))
    provider.get_tracer("test").start_span("request").end()
    tracing.stop(provider, 0.1)
    asked.result(120)
    answer.set()


def test_messages_about_a_collector_that_is_away_are_logged_once_a_minute() -> None:
    occasional = Occasional()

    def shown(name: str, reason: str, at: float) -> bool:
        record = logging.LogRecord(name, logging.WARNING, "", 0, "cannot send: %s", (reason,), None)
        record.created = at
        return occasional.filter(record)

    exporter = "opentelemetry.exporter"
    moments = [shown(exporter, f"reason {at}", at) for at in (1000.0, 1059.0, 1061.0)]
    assert moments == [True, False, True]
    assert shown("serving", "another", 1062.0)
    assert shown("serving", "another", 1063.0)
