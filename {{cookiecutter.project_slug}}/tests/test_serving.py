"""Predictions over HTTP: right answers, clear refusals, a documentation that is true."""

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
from {{ cookiecutter.package_name }}.serving.settings import ServerSettings

from .conftest import Traffic
from .quick import BAD_ITEMS
from .servers import Server, close, inside, sample, started

JSON = {"content-type": "application/json"}
MOST = ServerSettings.model_fields["max_items"].default
LIMIT = ServerSettings.model_fields["max_body_bytes"].default


def detail(answer: Any) -> dict[str, Any]:
    """What an answer says is wrong."""
    (found,) = answer.json()["detail"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert found["msg"]
    return found


def test_every_answer_names_model_version_and_request_id(
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
def test_a_request_id_that_could_do_harm_is_replaced(
    client: TestClient, example: dict[str, Any], bad: str
) -> None:
    given = {b"x-request-id": bad.encode()}
    for answer in (
        client.post("/v1/predict", json=example, headers=given),
        client.get("/healthz", headers=given),
    ):
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_many_items_are_answered_in_order_and_like_single_ones(
    client: TestClient, traffic: Traffic
) -> None:
    items = traffic.usual[:10]
    many = client.post("/v1/predict", json={"items": items}).json()["predictions"]
    for item, prediction in zip(items, many, strict=True):
        (one,) = client.post("/v1/predict", json={"items": [item]}).json()["predictions"]
        assert close(prediction, one, 1e-5)


def test_a_request_may_have_so_many_items_and_no_more(
    client: TestClient, example: dict[str, Any]
) -> None:
    items = example["items"][:1] * MOST
    answer = client.post("/v1/predict", json={"items": items})
    assert len(answer.json()["predictions"]) == MOST
    answer = client.post("/v1/predict", json={"items": [*items, items[0]]})
    assert answer.status_code == 422
    assert detail(answer)["loc"] == ["body", "items"]


@pytest.mark.parametrize(("item", "field"), BAD_ITEMS)
def test_a_wrong_item_gets_422_with_the_field(
    client: TestClient, example: dict[str, Any], item: dict[str, Any], field: str
) -> None:
    body = json.dumps({"items": [*example["items"], item]})
    answer = client.post("/v1/predict", content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert detail(answer)["loc"][:4] == ["body", "items", len(example["items"]), field]


@pytest.mark.parametrize(
    ("content", "headers", "status", "place"),
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
        (b"{" + b" " * LIMIT + b"}", {}, 413, ["body"]),
    ],
)
def test_a_wrong_body_is_refused_naming_what_is_wrong(
    client: TestClient, content: bytes, headers: dict[str, str], status: int, place: list[str]
) -> None:
    answer = client.post("/v1/predict", content=content, headers={**JSON, **headers})
    assert answer.status_code == status, answer.text
    assert detail(answer)["loc"] == place


def test_an_unknown_field_beside_the_items_is_named(
    client: TestClient, example: dict[str, Any]
) -> None:
    answer = client.post("/v1/predict", json={**example, "more": 1})
    assert answer.status_code == 422
    assert detail(answer)["loc"] == ["body", "more"]


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/feedback"])
def test_a_body_without_announced_length_is_cut_off_too(client: TestClient, path: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 2**16

    answer = client.post(path, content=endless(), headers=JSON)
    assert answer.status_code == 413
    assert detail(answer)["loc"] == ["body"]


def test_a_packed_body_is_unpacked(client: TestClient, example: dict[str, Any]) -> None:
    packed = gzip.compress(json.dumps(example).encode())
    headers = {**JSON, "content-encoding": "gzip"}
    answer = client.post("/v1/predict", content=packed, headers=headers)
    assert answer.status_code == 200, answer.text
    plain = client.post("/v1/predict", json=example)
    assert answer.json()["predictions"] == plain.json()["predictions"]


def test_a_packed_bomb_is_refused_before_it_fills_the_memory(client: TestClient) -> None:
    bomb = gzip.compress(b" " * 64 * LIMIT)
    assert len(bomb) < LIMIT
    headers = {**JSON, "content-encoding": "gzip"}
    tracemalloc.start()
    try:
        answer = client.post("/v1/predict", content=bomb, headers=headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413
    assert peak < 6 * LIMIT


async def caller(*parts: bytes, ends: str = "silent") -> AsyncIterator[dict[str, Any]]:
    """What a caller sends who is then silent, gone or done."""
    for part in parts:
        more = ends != "done" or part is not parts[-1]
        yield {"type": "http.request", "body": part, "more_body": more}
    if ends == "silent":
        await asyncio.sleep(60)
    yield {"type": "http.disconnect"}


def direct(
    client: TestClient, application: Any, messages: AsyncIterator[Any], **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and content that an ASGI application sends, in the server's event loop."""
    given = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    path, sent = "/v1/predict", []
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"root_path": "", "query_string": b"", "http_version": "1.1", "scheme": "http"}
    scope["headers"] = [(b"content-type", b"application/json"), *given]

    async def run() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        await application(scope, messages.__anext__, send)

    assert client.portal is not None
    client.portal.call(run)
    head, *bodies = sent
    names = {name.decode(): text.decode() for name, text in head["headers"]}
    return head["status"], names, json.loads(b"".join(part.get("body", b"") for part in bodies))


def test_a_body_that_arrives_too_slowly_gets_408(deployment: Path) -> None:
    with started(deployment, body_seconds=0.05) as client:
        status, headers, answer = direct(client, inside(client), caller(b'{"items"'))
        assert status == 408
        assert answer["detail"][0]["loc"] == ["body"]
        assert headers["connection"] == "close"


def test_a_caller_who_goes_away_is_no_error(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    for parts in ((), (b'{"items"',)):
        status, _, _ = direct(client, inside(client), caller(*parts, ends="gone"))
        assert status == 499
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert sample(client, "requests_in_progress") == 0


def test_the_route_and_the_short_way_answer_alike(
    client: TestClient, example: dict[str, Any]
) -> None:
    good, bad = json.dumps(example).encode(), json.dumps({"items": [{}]}).encode()
    for content in (good, bad, b"[", b"{}"):
        short, routed = (
            direct(client, application, caller(content, ends="done"), x_request_id="one")
            for application in (inside(client), inside(client).rest)
        )
        assert short[0] == routed[0]
        assert short[2] == routed[2]
        for name in ("content-type", "x-request-id", "x-model-version", "x-model-variant"):
            assert short[1][name] == routed[1][name], name


@pytest.mark.parametrize("text", ["0.0001", "1e-9"])
def test_a_deadline_that_cannot_be_met_gets_504(
    client: TestClient, example: dict[str, Any], text: str
) -> None:
    answer = client.post("/v1/predict", json=example, headers={"x-timeout-ms": text})
    assert answer.status_code == 504
    assert detail(answer)["type"] == "deadline"


@pytest.mark.parametrize("text", ["1000", "10000.5", "1e9", "inf"])
def test_a_generous_deadline_is_accepted(
    client: TestClient, example: dict[str, Any], text: str
) -> None:
    answer = client.post("/v1/predict", json=example, headers={"x-timeout-ms": text})
    assert answer.status_code == 200


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "1 s"])
def test_a_deadline_that_is_no_time_gets_422(
    client: TestClient, example: dict[str, Any], text: str
) -> None:
    answer = client.post("/v1/predict", json=example, headers={"x-timeout-ms": text})
    assert answer.status_code == 422
    assert detail(answer)["loc"] == ["header", "x-timeout-ms"]


def test_overload_is_told_with_when_to_come_again(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Overloaded

    live = inside(client).predict.engine.live
    assert live is not None
    with monkeypatch.context() as patch:
        patch.setattr(live.champion.queue, "submit", full)
        answer = client.post("/v1/predict", json=example)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert detail(answer)["type"] == "overloaded"
    assert client.post("/v1/predict", json=example).status_code == 200


def test_the_answer_tells_how_long_it_waited_and_was_computed(
    client: TestClient, example: dict[str, Any]
) -> None:
    timing = client.post("/v1/predict", json=example).headers["server-timing"]
    found = re.fullmatch(r"queue;dur=([\d.]+), compute;dur=([\d.]+)", timing)
    assert found
    assert float(found[1]) >= 0
    assert float(found[2]) > 0


def test_an_unexpected_error_is_a_500_with_its_id_and_leaves_the_server_alive(
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


def test_metrics_count_requests_errors_latency_and_items_by_model_version(
    client: TestClient, example: dict[str, Any]
) -> None:
    version = client.get("/readyz").json()["model_version"]
    client.post("/v1/predict", json={"items": example["items"] * 3})
    client.post("/v1/predict", json={})
    client.get("/nowhere/1")
    client.get("/nowhere/2")
    own = {"route": "/v1/predict", "version": version}
    assert sample(client, "http_requests_total", status="200", **own) == 1
    assert sample(client, "http_requests_total", status="422", **own) == 1
    assert sample(client, "http_request_seconds_count", **own) == 2
    assert sample(client, "predictions_total", version=version) == 3 * len(example["items"])
    assert sample(client, "batch_items_sum", version=version) == 3 * len(example["items"])
    assert sample(client, "http_requests_total", route="unknown", status="404") == 2


def test_garbage_is_collected_again_once_the_server_is_ready(deployment: Path) -> None:
    gc.disable()  # as `serve` does while modules are loaded
    try:
        with started(deployment):
            assert gc.isenabled()
    finally:
        gc.enable()


def test_predict_asks_the_server_or_the_bundle_and_both_agree(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert cli.main(["predict", "--url", server.url]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there["predictions"] == here["predictions"]
    assert cli.main(["predict", "--url", "http://127.0.0.1:9"]) == 1
    assert "no answer" in capsys.readouterr().err
    assert cli.main(["predict", "--url", "127.0.0.1"]) == 2
