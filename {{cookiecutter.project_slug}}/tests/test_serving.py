"""Predictions over HTTP: right predictions, clear errors, true documentation."""

import asyncio
import gc
import gzip
import json
import re
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle.load import Bundle
from {{ cookiecutter.package_name }}.serving.scheduler import Overloaded
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings
from {{ cookiecutter.package_name }}.task.contract import Contract

from .quick import BAD_ITEMS
from .servers import Server, close, inside, sample, started

JSON = {"content-type": "application/json"}
MAX_ITEMS = ServerSettings.model_fields["max_items"].default
MAX_BYTES = ServerSettings.model_fields["max_body_bytes"].default


def detail(answer: Any) -> dict[str, Any]:
    """The error in a response."""
    (error,) = answer.json()["detail"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert error["msg"]
    return error


def test_every_response_names_model_version_and_request_id(
    client: TestClient, example: dict[str, Any]
) -> None:
    version = client.get("/readyz").json()["model_version"]
    for answer in (
        client.post("/v1/predict", json=example),
        client.post("/v1/predict", content="nonsense"),
        client.get("/nowhere"),
        client.get("/healthz"),
    ):
        assert answer.headers["x-model-version"] == version
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    answer = client.post("/v1/predict", json=example, headers={"x-request-id": "mine-1"})
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["model_version"] == version
    assert answer.headers["x-model-variant"] == "champion"


@pytest.mark.parametrize("bad", ["bad id", "", "x" * 65, "a/b", "é"])
def test_unsafe_request_id_is_replaced(
    client: TestClient, example: dict[str, Any], bad: str
) -> None:
    headers = {b"x-request-id": bad.encode()}
    for answer in (
        client.post("/v1/predict", json=example, headers=headers),
        client.get("/healthz", headers=headers),
    ):
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_many_items_are_predicted_in_order_and_like_single_ones(
    client: TestClient, request_items: list[dict[str, Any]]
) -> None:
    items = request_items[:10]
    many = client.post("/v1/predict", json={"items": items}).json()["predictions"]
    for item, prediction in zip(items, many, strict=True):
        (one,) = client.post("/v1/predict", json={"items": [item]}).json()["predictions"]
        assert close(prediction, one, 1e-5)


def test_items_per_request_are_limited(client: TestClient, example: dict[str, Any]) -> None:
    items = example["items"][:1] * MAX_ITEMS
    answer = client.post("/v1/predict", json={"items": items})
    assert len(answer.json()["predictions"]) == MAX_ITEMS
    answer = client.post("/v1/predict", json={"items": [*items, items[0]]})
    assert answer.status_code == 422
    assert detail(answer)["loc"] == ["body", "items"]


@pytest.mark.parametrize(("item", "field"), BAD_ITEMS)
def test_invalid_item_gets_422_naming_the_field(
    client: TestClient, example: dict[str, Any], item: dict[str, Any], field: str
) -> None:
    body = json.dumps({"items": [*example["items"], item]})
    answer = client.post("/v1/predict", content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert detail(answer)["loc"][:4] == ["body", "items", len(example["items"]), field]


@pytest.mark.parametrize(
    ("content", "headers", "status", "loc"),
    [
        (b"not json", {}, 400, ["body"]),
        (b"", {}, 400, ["body"]),
        (b'{"items": [' + b"[" * 100_000, {}, 400, ["body"]),
        (b"\xff\xfe", {}, 400, ["body"]),
        (b'{"items": []}', {}, 422, ["body", "items"]),
        (b"[]", {}, 422, ["body"]),
        (b'{"items": {}}', {}, 422, ["body", "items"]),
        (b"{}", {}, 422, ["body", "items"]),
        (b"{}", {"content-type": "text/plain"}, 415, ["header", "content-type"]),
        (b"a=b", {"content-type": ""}, 415, ["header", "content-type"]),
        (b"{}", {"content-encoding": "br"}, 415, ["header", "content-encoding"]),
        (b"{}", {"content-encoding": "gzip"}, 400, ["body"]),
        (b"", {"content-encoding": "gzip"}, 400, ["body"]),
        (gzip.compress(b"{}")[:-1], {"content-encoding": "gzip"}, 400, ["body"]),
        (gzip.compress(b"{}") + b"more", {"content-encoding": "gzip"}, 400, ["body"]),
        (b"{" + b" " * MAX_BYTES + b"}", {}, 413, ["body"]),
    ],
)
def test_invalid_body_is_refused_naming_the_reason(
    client: TestClient, content: bytes, headers: dict[str, str], status: int, loc: list[str]
) -> None:
    answer = client.post("/v1/predict", content=content, headers={**JSON, **headers})
    assert answer.status_code == status, answer.text
    assert detail(answer)["loc"] == loc


def test_unknown_field_beside_the_items_is_named(
    client: TestClient, example: dict[str, Any]
) -> None:
    answer = client.post("/v1/predict", json={**example, "more": 1})
    assert answer.status_code == 422
    assert detail(answer)["loc"] == ["body", "more"]


def endless() -> Iterator[bytes]:
    """A body that is sent in parts, without a content-length."""
    for _ in range(1000):
        yield b" " * 2**16


def test_body_without_content_length_is_limited_too(client: TestClient) -> None:
    answer = client.post("/v1/predict", content=endless(), headers=JSON)
    assert answer.status_code == 413
    assert detail(answer)["loc"] == ["body"]


def test_gzip_body_is_decompressed(client: TestClient, example: dict[str, Any]) -> None:
    compressed = gzip.compress(json.dumps(example).encode())
    headers = {**JSON, "content-encoding": "gzip"}
    answer = client.post("/v1/predict", content=compressed, headers=headers)
    assert answer.status_code == 200, answer.text
    plain = client.post("/v1/predict", json=example)
    assert answer.json()["predictions"] == plain.json()["predictions"]


def test_gzip_bomb_is_refused_before_it_fills_the_memory(client: TestClient) -> None:
    bomb = gzip.compress(b" " * 64 * MAX_BYTES)
    assert len(bomb) < MAX_BYTES
    headers = {**JSON, "content-encoding": "gzip"}
    tracemalloc.start()
    try:
        answer = client.post("/v1/predict", content=bomb, headers=headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413
    assert peak < 6 * MAX_BYTES


async def messages(*parts: bytes, end: str = "silent") -> AsyncIterator[dict[str, Any]]:
    """The ASGI messages of a client that is then silent, gone or done."""
    for part in parts:
        more = end != "done" or part is not parts[-1]
        yield {"type": "http.request", "body": part, "more_body": more}
    if end == "silent":
        await asyncio.sleep(60)
    yield {"type": "http.disconnect"}


def direct(
    client: TestClient,
    application: Any,
    sent: AsyncIterator[Any],
    path: str = "/v1/predict",
    **headers: str,
) -> tuple[int, dict[str, str], Any]:
    """Run an ASGI application in the server's event loop; its status, headers and content."""
    encoded = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    received = []
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"root_path": "", "query_string": b"", "http_version": "1.1", "scheme": "http"}
    scope["headers"] = [(b"content-type", b"application/json"), *encoded]

    async def run() -> None:
        async def send(message: Any) -> None:
            received.append(message)

        await application(scope, sent.__anext__, send)

    assert client.portal is not None
    client.portal.call(run)
    head, *bodies = received
    names = {name.decode(): text.decode() for name, text in head["headers"]}
    return head["status"], names, json.loads(b"".join(part.get("body", b"") for part in bodies))


def test_slow_body_gets_408(deployment: Path) -> None:
    with started(deployment, body_seconds=0.05) as client:
        status, headers, answer = direct(client, inside(client), messages(b'{"items"'))
        assert status == 408
        assert answer["detail"][0]["loc"] == ["body"]
        assert headers["connection"] == "close"


def test_disconnected_client_is_no_error(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    for parts in ((), (b'{"items"',)):
        status, _, _ = direct(client, inside(client), messages(*parts, end="gone"))
        assert status == 499
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert sample(client, "requests_in_progress") == 0


def test_documented_route_and_predict_path_answer_alike(
    client: TestClient, example: dict[str, Any]
) -> None:
    good, bad = json.dumps(example).encode(), json.dumps({"items": [{}]}).encode()
    for content in (good, bad, b"[", b"{}"):
        fast, routed = (
            direct(client, application, messages(content, end="done"), x_request_id="one")
            for application in (inside(client), inside(client).api)
        )
        assert fast[0] == routed[0]
        assert fast[2] == routed[2]
        for name in ("content-type", "x-request-id", "x-model-version", "x-model-variant"):
            assert fast[1][name] == routed[1][name], name


@pytest.mark.parametrize("text", ["0.0001", "1e-9"])
def test_exceeded_deadline_gets_504(client: TestClient, example: dict[str, Any], text: str) -> None:
    answer = client.post("/v1/predict", json=example, headers={"x-timeout-ms": text})
    assert answer.status_code == 504
    assert detail(answer)["type"] == "deadline"


@pytest.mark.parametrize("text", ["1000", "10000.5", "1e9", "inf"])
def test_generous_deadline_is_accepted(
    client: TestClient, example: dict[str, Any], text: str
) -> None:
    answer = client.post("/v1/predict", json=example, headers={"x-timeout-ms": text})
    assert answer.status_code == 200


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "1 s"])
def test_invalid_deadline_gets_422(client: TestClient, example: dict[str, Any], text: str) -> None:
    answer = client.post("/v1/predict", json=example, headers={"x-timeout-ms": text})
    assert answer.status_code == 422
    assert detail(answer)["loc"] == ["header", "x-timeout-ms"]


def test_overload_gets_503_with_retry_after(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Overloaded

    active = inside(client).models.active
    assert active is not None
    with monkeypatch.context() as patch:
        patch.setattr(active.champion.queue, "submit", full)
        answer = client.post("/v1/predict", json=example)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert detail(answer)["type"] == "overloaded"
    assert client.post("/v1/predict", json=example).status_code == 200


def test_request_that_would_take_too_long_to_read_gets_413(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Contract, "encoding_seconds", lambda *_: 1.0)
        answer = client.post("/v1/predict", json={"items": example["items"] * 5})
        assert answer.status_code == 413
        assert detail(answer)["loc"] == ["body", "items"]
        assert "about 5 s" in detail(answer)["msg"]
        assert client.post("/v1/predict", json=example).status_code == 200


def test_server_timing_tells_queue_and_compute_time(
    client: TestClient, example: dict[str, Any]
) -> None:
    timing = client.post("/v1/predict", json=example).headers["server-timing"]
    times = re.fullmatch(r"queue;dur=([\d.]+), compute;dur=([\d.]+)", timing)
    assert times
    assert float(times[1]) >= 0
    assert float(times[2]) > 0


def test_model_error_gets_500_with_request_id_and_the_server_goes_on(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "run", fail)
        answer = client.post("/v1/predict", json=example)
    assert answer.status_code == 500
    assert "broken" not in answer.text
    assert detail(answer)["type"] == "internal"
    assert client.post("/v1/predict", json=example).status_code == 200


def test_error_in_a_route_gets_500_with_request_id_and_is_counted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(inside(client).models, "loaded", fail)
        answer = client.get("/v1/models")
    assert answer.status_code == 500
    assert "broken" not in answer.text
    assert detail(answer)["type"] == "internal"
    assert "unexpected error" in [record.getMessage() for record in caplog.records]
    assert sample(client, "http_requests_total", route="/v1/models", status="500") == 1


def test_metrics_count_requests_errors_latency_and_items_by_version(
    client: TestClient, example: dict[str, Any]
) -> None:
    version = client.get("/readyz").json()["model_version"]
    client.post("/v1/predict", json={"items": example["items"] * 3})
    client.post("/v1/predict", json={})
    client.get("/nowhere/1")
    client.get("/nowhere/2")
    labels = {"route": "/v1/predict", "version": version}
    assert sample(client, "http_requests_total", status="200", **labels) == 1
    assert sample(client, "http_requests_total", status="422", **labels) == 1
    assert sample(client, "http_request_seconds_count", **labels) == 2
    assert sample(client, "predictions_total", version=version) == 3 * len(example["items"])
    assert sample(client, "batch_items_sum", version=version) == 3 * len(example["items"])
    assert sample(client, "http_requests_total", route="unknown", status="404") == 2


def test_garbage_collection_is_enabled_once_the_server_is_ready(deployment: Path) -> None:
    gc.disable()  # as `serve` does while modules are loaded
    try:
        with started(deployment):
            assert gc.isenabled()
    finally:
        gc.enable()


def test_predict_command_agrees_with_and_without_a_server(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert cli.main(["predict", "--url", server.url]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there["predictions"] == here["predictions"]
    assert cli.main(["predict", "--url", "http://127.0.0.1:9"]) == 1
    assert "no response" in capsys.readouterr().err
    assert cli.main(["predict", "--url", "127.0.0.1"]) == 2
