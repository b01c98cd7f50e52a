"""Real processes: several workers are one server; start, drain and end."""

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.serving.memory import memory_limit, memory_warning

from .servers import (
    PATIENCE,
    Answer,
    Load,
    Server,
    challenge,
    failed_start,
    install_copy,
    processes,
    running,
    total,
    until,
)

pytestmark = pytest.mark.skipif(
    not Path("/proc").exists(), reason="processes are looked at in /proc"
)


def workers(server: Server, count: int = 2) -> set[int]:
    """The ids of `count` worker processes, once so many have answered."""
    pids: set[int] = set()

    def complete() -> bool:
        with contextlib.suppress(OSError):
            pids.add(server.send("/healthz").json["worker"])
        return len(pids) >= count

    until(complete)
    return pids


def ended(server: Server) -> int:
    """The exit code; no process may be left over."""
    code = server.process.wait(PATIENCE)
    until(lambda: not processes(server))
    return code


def post_many(server: Server, example: dict[str, Any], count: int) -> list[Answer]:
    """Send so many valid requests, four at a time."""
    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(server.send, "/v1/predict", example) for _ in range(count)]
    answers = [call.result() for call in calls]
    assert {answer.status for answer in answers} == {200}
    return answers


def test_two_workers_are_one_server(deployment: Path, example: dict[str, Any]) -> None:
    """Metrics, deployments and the end, with APP_WORKERS=2."""
    items = len(example["items"])
    with running(deployment, workers=2) as server:
        both = workers(server)
        assert server.process.pid not in both
        post_many(server, example, 60)
        server.send("/v1/predict", {})

        def sample(name: str, **labels: str) -> float:
            return total(server.send("/metrics").text, name, **labels)

        route = {"route": "/v1/predict"}
        until(lambda: sample("http_requests_total", status="200", **route) == 60)
        assert sample("http_requests_total", status="422", **route) == 1
        assert sample("http_request_seconds_count", **route) == 61
        assert sample("predictions_total") == 60 * items
        assert sample("batch_items_sum") == 60 * items
        assert sample("model_loaded") == 1
        assert sample("model_info") == 1
        assert sample("process_resident_memory_bytes") > 40e6
        assert "worker_restarts_total 0" in server.send("/metrics").text

        # both load a new deployment
        second = install_copy(deployment, "second")
        challenge(deployment, second, 1.0)
        loaded: set[int] = set()

        def both_loaded() -> bool:
            models = server.send("/v1/models").json
            if len(models["models"]) == 2:
                loaded.add(models["worker"])
            return loaded >= both

        until(both_loaded)
        answers = [server.send("/v1/predict", example) for _ in range(10)]
        assert {answer.headers["x-model-version"] for answer in answers} == {"second"}
        assert sample("model_info", version="second") == 1

        # a killed worker is replaced, and its counts stay
        until(lambda: sample("http_requests_total", status="200", **route) == 70)
        os.kill(min(both), signal.SIGKILL)
        until(lambda: min(both) not in processes(server))
        again = workers(server)
        assert min(both) not in again
        until(server.ready)
        assert server.send("/v1/predict", example).status == 200
        until(lambda: sample("http_requests_total", status="200", **route) == 71)
        assert sample("model_loaded") == 1
        assert sample("worker_restarts_total") == 1
        died = "worker died and was replaced"
        (line,) = [line for line in server.lines() if line["message"] == died]
        assert (line["worker"], line["exit_code"]) == (min(both), -signal.SIGKILL)

        server.process.send_signal(signal.SIGTERM)
        assert ended(server) == 0


@pytest.mark.parametrize("workers_", [1, 2])
def test_sigterm_under_load_fails_no_request_and_exits_with_0(
    deployment: Path, example: dict[str, Any], workers_: int
) -> None:
    with running(deployment, workers=workers_) as server:
        end_under_load(server, example)


def end_under_load(server: Server, example: dict[str, Any]) -> list[Answer]:
    """End the server while clients send requests; return the responses."""

    def post() -> Answer | None:
        try:
            return server.send("/v1/predict", example)
        except OSError:  # it listens no more
            time.sleep(0.01)
            return None

    with Load(post, 3) as load:
        until(lambda: len(load.answers) > 60)
        server.process.send_signal(signal.SIGTERM)
        assert ended(server) == 0
    answers = [answer for answer in load.answers if answer is not None]
    assert {answer.status for answer in answers} == {200}
    return answers


def begun_request(url: str, length: int) -> socket.socket:
    """Open a connection and send the head of a request; the server is waiting for the body."""
    host, port = url.removeprefix("http://").split(":")
    head = (
        "POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    )
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.sendall(head.encode())
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return connection


def test_request_in_progress_is_answered_before_the_end(
    deployment: Path, example: dict[str, Any]
) -> None:
    with running(deployment, access_log=True) as server:
        end_during_a_request(server, example)
        line = next(line for line in server.lines() if line["message"] == "request")
    assert (line["path"], line["status"]) == ("/v1/predict", 200)
    assert line["request_id"]
    assert line["model_version"]


def end_during_a_request(
    server: Server, example: dict[str, Any], number: signal.Signals = signal.SIGTERM
) -> None:
    """Send half a request, end the server, send the rest; the response must be complete."""
    body = json.dumps(example).encode()
    with begun_request(server.url, len(body)) as connection:
        connection.sendall(body[:-10])
        server.process.send_signal(number)
        until(lambda: server.logged("Shutting down"))
        connection.sendall(body[-10:])
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert ended(server) == 0


@pytest.mark.parametrize("workers_", [1, 2])
def test_second_sigterm_ends_the_server_despite_a_silent_client(
    deployment: Path, workers_: int
) -> None:
    with running(
        deployment, workers=workers_, drain_seconds=1, body_seconds=10 * PATIENCE
    ) as server:
        if workers_ > 1:
            workers(server)
        with begun_request(server.url, 2) as connection:
            connection.sendall(b"{")
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.logged("Waiting for connections to close"))
            server.process.send_signal(signal.SIGTERM)
            assert ended(server) == 0


def test_requests_are_not_logged_by_default(server: Server, example: dict[str, Any]) -> None:
    assert server.send("/v1/predict", example).status == 200
    assert server.send("/nowhere").status == 404
    assert "request" not in [line["message"] for line in server.lines()]
    assert "model loaded" in [line["message"] for line in server.lines()]


def test_failed_start_gives_its_reason_in_one_line(deployment: Path, server: Server) -> None:
    port = server.url.rpartition(":")[2]
    for settings, reason in (
        ({"port": port}, f"127.0.0.1:{port}: cannot listen"),
        ({"port": 99999}, "$APP_PORT: port=99999"),
        ({"engine": "fast"}, "$APP_ENGINE: engine=fast"),
        ({"deployment_dir": damaged(deployment)}, "model.onnx"),
        ({"environment": "production", "api_keys": "secret"}, "$APP_API_KEYS: api_keys"),
    ):
        code, lines = failed_start(deployment, **settings)
        assert code == 2, settings
        (line,) = lines
        assert reason in line


def damaged(deployment: Path) -> Path:
    """A copy of the deployment whose model has one flipped bit."""
    place = deployment.with_name("damaged")
    shutil.copytree(deployment, place)
    model = folder.champion_path(place)[0] / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    return place


def test_silent_clients_delay_nobody(deployment: Path, example: dict[str, Any]) -> None:
    """A hundred clients send half a request and no more; nobody waits for the rest."""
    with (
        running(deployment, body_seconds=10 * PATIENCE) as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(100):
            connection = stack.enter_context(begun_request(server.url, 100))
            connection.sendall(b"{")
        for _ in range(10):
            assert server.send("/v1/predict", example).status == 200


@pytest.mark.parametrize(
    ("limit", "outer", "workers_", "advice"),
    [
        ("max", "max", 64, None),
        ("268435456", "max", 1, None),
        ("268435456", "max", 4, "256 MiB is too small for APP_WORKERS=4, which takes about 3"),
        ("max", "268435456", 4, "set APP_WORKERS=2 or raise the limit"),
        ("67108864", "max", 1, ": raise the limit"),
    ],
)
def test_memory_limit_that_is_too_small_for_the_workers_is_told(
    deployment: Path, tmp_path: Path, limit: str, outer: str, workers_: int, advice: str | None
) -> None:
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "pod/container").mkdir(parents=True)
    own.write_text("0::/pod/container\n")
    (root / "pod/container/memory.max").write_text(f"{limit}\n")
    (root / "pod/memory.max").write_text(f"{outer}\n")
    bundles = [folder.champion_path(deployment)[0]]
    warning = memory_warning(memory_limit(own, root), workers_, bundles)
    assert (warning is None) if advice is None else (advice in (warning or ""))


def test_memory_limit_of_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "memory").mkdir(parents=True)
    own.write_text("4:memory:/the/host's/path\n1:cpu:/the/host's/path\n0::/the/host's/path\n")
    (root / "memory/memory.limit_in_bytes").write_text("268435456\n")
    assert memory_limit(own, root) == 268435456


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path / "none", tmp_path) == float("inf")
