"""The server: right answers, clear refusals, no request lost."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle import load
from {{ cookiecutter.package_name }}.serving import app, engine
from {{ cookiecutter.package_name }}.serving.settings import Serving

from .conftest import CONFIG
from .quick import BAD_ITEMS


@pytest.fixture
def client(deployment: Path) -> Iterator[TestClient]:
    settings = Serving(deployment_dir=deployment, reload_seconds=0.02)
    with TestClient(app.create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def example(deployment: Path) -> dict[str, Any]:
    folder, _ = load.deployed(deployment)
    return json.loads((folder / "example.json").read_text(encoding="utf-8"))


def until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def sample(client: TestClient, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    total = 0.0
    for line in client.get("/metrics").text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
            total += float(value)
    return total


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
    answer = client.get("/healthz", headers={"x-request-id": "bad id\n"[:6] + " "})
    assert answer.headers["x-request-id"] != "bad id"


def test_many_items_are_answered_in_order_and_like_single_ones(
    client: TestClient, example: dict[str, Any], deployment: Path
) -> None:
    items = example["items"] * app.MAX_ITEMS
    many = client.post("/v1/predict", json={"items": items}).json()["predictions"]
    one = client.post("/v1/predict", json=example).json()["predictions"][0]
    assert len(many) == app.MAX_ITEMS
    for prediction in many:
        assert prediction.keys() == one.keys()
        assert prediction.get("label") == one.get("label")


@pytest.mark.parametrize(("item", "field"), BAD_ITEMS)
def test_a_wrong_item_gets_422_with_the_field(
    client: TestClient, example: dict[str, Any], item: dict[str, Any], field: str
) -> None:
    body = json.dumps({"items": [*example["items"], item]})
    answer = client.post("/v1/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    (detail,) = answer.json()["detail"]
    assert detail["loc"][:4] == ["body", "items", len(example["items"]), field]
    assert detail["msg"]


@pytest.mark.parametrize(
    ("content", "media", "status", "place"),
    [
        (b"not json", "application/json", 400, ["body"]),
        (b"", "application/json", 400, ["body"]),
        (b'{"items": [' + b"[" * 100_000, "application/json", 400, ["body"]),
        (b"\xff\xfe", "application/json", 400, ["body"]),
        (b'{"items": []}', "application/json", 422, ["body", "items"]),
        (b"[]", "application/json", 422, ["body"]),
        (b'{"items": {}}', "application/json", 422, ["body", "items"]),
        (b"{}", "application/json", 422, ["body", "items"]),
        (b"{}", "text/plain", 415, ["header", "content-type"]),
        (b"a=b", "application/x-www-form-urlencoded", 415, ["header", "content-type"]),
        (b"{" + b" " * 10_000_000 + b"}", "application/json", 413, ["body"]),
    ],
)
def test_a_wrong_body_is_refused_naming_what_is_wrong(
    client: TestClient, content: bytes, media: str, status: int, place: list[str]
) -> None:
    answer = client.post("/v1/predict", content=content, headers={"content-type": media})
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"][0]["loc"] == place
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_an_unknown_field_beside_the_items_is_named(
    client: TestClient, example: dict[str, Any]
) -> None:
    answer = client.post("/v1/predict", json={**example, "more": 1})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "more"]


def test_a_body_without_announced_length_is_cut_off_too(client: TestClient) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 2**16
            yield b" " * 2**16

    answer = client.post(
        "/v1/predict", content=endless(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413


def test_too_many_items_are_refused(client: TestClient, example: dict[str, Any]) -> None:
    items = example["items"] * (app.MAX_ITEMS + 1)
    answer = client.post("/v1/predict", json={"items": items})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "items"]


def test_a_wrong_address_or_method_has_the_same_form_of_answer(client: TestClient) -> None:
    for answer, status in ((client.get("/nowhere"), 404), (client.get("/v1/predict"), 405)):
        assert answer.status_code == status
        assert answer.json()["detail"][0]["msg"]
        assert answer.json()["request_id"]


def test_without_a_deployment_it_starts_says_why_and_takes_up_the_first_one(
    deployment: Path, tmp_path: Path, example: dict[str, Any]
) -> None:
    later = tmp_path / "later"
    settings = Serving(deployment_dir=later, reload_seconds=0.02)
    with TestClient(app.create_app(settings)) as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "nothing is deployed yet" in ready.json()["reason"]
        answer = client.post("/v1/predict", json=example)
        assert answer.status_code == 503
        assert "nothing is deployed yet" in answer.json()["detail"][0]["msg"]
        assert answer.headers["x-model-version"] == "none"
        deployment.rename(later)
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/predict", json=example).status_code == 200


def test_a_deployment_with_one_flipped_byte_is_refused_and_the_old_model_serves_on(
    client: TestClient, deployment: Path, example: dict[str, Any]
) -> None:
    old = client.get("/readyz").json()["model_version"]
    folder, _ = load.deployed(deployment)
    bad = folder.with_name("bad")
    bad.mkdir()
    for path in folder.iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    content = bytearray((bad / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bad / "model.onnx").write_bytes(content)
    whole = json.loads((deployment / "deployment.json").read_text())
    champion = {**whole["champion"], "bundle": "bundles/bad"}
    (deployment / "deployment.json").write_text(json.dumps({**whole, "champion": champion}))
    until(lambda: client.get("/v1/models").json()["problem"])
    assert "bad/model.onnx: its content has changed" in client.get("/v1/models").json()["problem"]
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert "model.onnx" in ready.json()["reason"]
    answer = client.post("/v1/predict", json=example)
    assert answer.status_code == 200
    assert answer.json()["model_version"] == old
    assert sample(client, "deployments_refused_total") == 1


def test_a_new_deployment_is_taken_up_and_no_request_is_lost(
    client: TestClient, work: Path, example: dict[str, Any]
) -> None:
    old = client.get("/readyz").json()["model_version"]
    run = next(work.glob("runs/*"))
    shutil.copytree(run, run.with_name("99991231-235959"), ignore=shutil.ignore_patterns("bundle"))
    answers: list[tuple[int, str]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answer = client.post("/v1/predict", json=example)
            answers.append((answer.status_code, answer.json().get("model_version", "")))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert cli.main(["deploy", "--config", str(CONFIG)]) == 0
        until(lambda: client.get("/readyz").json()["model_version"] != old)
        time.sleep(0.2)
    finally:
        done.set()
        asking.join()
    new = client.get("/readyz").json()["model_version"]
    assert {status for status, _ in answers} == {200}
    versions = [version for _, version in answers]
    assert versions == sorted(versions), "once the new one answers, the old one does not"
    assert set(versions) == {old, new}
    assert sample(client, "model_info", version=old) == 0
    assert sample(client, "model_info", version=new) == 1


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
    assert sample(client, "http_requests_total", route="unknown", status="404") == 2


def test_models_tells_the_measured_quality(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert model["role"] == "champion"
    assert model["metrics"]
    assert model["baseline_metrics"]


def test_the_documentation_needs_no_internet(client: TestClient) -> None:
    page = client.get("/docs").text
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert links
    for link in links:
        assert not re.match(r"(https?:)?//", link), link
        assert client.get(f"/{link}").status_code == 200
    assert client.get("/", follow_redirects=False).headers["location"] == "docs"


def test_the_schema_is_what_is_accepted(client: TestClient, example: dict[str, Any]) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(app.PredictRequest.model_fields)
    item = body["properties"]["items"]["items"]
    assert item["additionalProperties"] is False
    assert set(example["items"][0]) <= set(item["properties"])
    assert {"200", "400", "413", "415", "422", "503"} == set(operation["responses"])
    assert "$ref" not in json.dumps(operation["requestBody"])


def test_an_unexpected_error_is_a_500_with_its_id_and_leaves_the_server_alive(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(engine.Engine, "predict", fail)
    answer = client.post("/v1/predict", json=example)
    assert answer.status_code == 500
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "broken" not in answer.text
    assert client.get("/healthz").status_code == 200


def test_slow_models_leave_the_event_loop_free(
    deployment: Path, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "INLINE_SECONDS", 0.0)
    answer_now = engine.Served.answer

    def slow(self: engine.Served, inputs: Any) -> Any:
        time.sleep(0.3)
        return answer_now(self, inputs)

    application = app.create_app(Serving(deployment_dir=deployment))

    async def both() -> tuple[float, float]:
        transport = httpx2.ASGITransport(application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            started = time.perf_counter()

            async def timed(request: Any) -> float:
                assert (await request).status_code == 200
                return time.perf_counter() - started

            return await asyncio.gather(
                timed(client.post("/v1/predict", json=example)), timed(client.get("/healthz"))
            )

    with TestClient(application):
        monkeypatch.setattr(engine.Served, "answer", slow)
        predicted, healthy = asyncio.run(both())
    assert healthy < 0.3 <= predicted


@pytest.fixture
def server(deployment: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real server process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "APP_PORT": str(port), "APP_DEPLOYMENT_DIR": str(deployment)}
    command = [sys.executable, "-m", cli.__name__, "serve"]
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, process.communicate()
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(ready, 60)
            yield process, url
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process at once on Windows")
def test_sigterm_drains(server: tuple[subprocess.Popen[str], str], example: dict[str, Any]) -> None:
    """A request that is under way when SIGTERM comes is answered; then the server ends with 0."""
    process, url = server
    body = json.dumps(example).encode()
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = (
            "POST /v1/predict HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body[:10])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body[10:])
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200"), answer
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
    lines = [json.loads(line) for line in log.splitlines()]
    request = next(line for line in lines if line["message"] == "request")
    assert request["path"] == "/v1/predict"
    assert request["status"] == 200
    assert request["request_id"]
    assert request["model_version"]


def test_predict_asks_the_server_or_the_bundle_and_both_agree(
    server: tuple[subprocess.Popen[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, url = server
    assert cli.main(["predict"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert cli.main(["predict", "--url", url]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there["predictions"] == here["predictions"]
    assert cli.main(["predict", "--url", "http://127.0.0.1:9"]) == 1
    assert "no answer" in capsys.readouterr().err
    assert cli.main(["predict", "--url", "127.0.0.1"]) == 2
