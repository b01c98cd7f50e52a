"""Servers under test, in this process and as real processes, and requests to them."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle import load
from {{ cookiecutter.package_name }}.bundle.deployment import BundleRef, Challenger
from {{ cookiecutter.package_name }}.serving.app import create_app
from {{ cookiecutter.package_name }}.serving.middleware import RequestMiddleware
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings

T = TypeVar("T")
MARK = "TEST_SERVER"  # in the environment of a server's processes, to find those left over
PATIENCE = 120  # seconds until a test gives up; it waits that long on a stuck machine only
INTERVALS = ("reload_seconds", "log_seconds")  # that tests do not wait for


def until(condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Wait for the first true value of `condition` and return it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return value


@contextmanager
def started(deployment: Path, **settings: Any) -> Iterator[TestClient]:
    """Start the application in this process."""
    fast = {name: 0.02 for name in INTERVALS if name in ServerSettings.model_fields}
    application = create_app(ServerSettings(deployment_dir=deployment, **{**fast, **settings}))
    with TestClient(application, "http://127.0.0.1", raise_server_exceptions=False) as client:
        answered: set[tuple[str, str, int]] = set()

        def record(answer: Any) -> None:
            request = answer.request
            answered.add((request.url.path, request.method.lower(), answer.status_code))

        client.event_hooks = {"response": [record]}
        yield client
        client.event_hooks = {}
        assert_documented(client, answered)


def assert_documented(client: TestClient, answered: set[tuple[str, str, int]]) -> None:
    """Check that each status of a known route is documented, except errors of the server."""
    paths = client.get("/openapi.json").json()["paths"]
    for path, method, status in answered:
        if method in paths.get(path, {}) and status != 500:
            assert str(status) in paths[path][method]["responses"], f"{method} {path}: {status}"


def inside(client: TestClient) -> RequestMiddleware:
    """The application behind a client of `started`."""
    return cast(RequestMiddleware, client.app)


def sample(client: TestClient, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    return total(client.get("/metrics").text, name, **labels)


def total(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples in Prometheus' text format."""
    value_sum = 0.0
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
            value_sum += float(value)
    return value_sum


def install_copy(deployment: Path, version: str) -> BundleRef:
    """Install a copy of the champion's bundle under another version."""
    source, _ = folder.champion_path(deployment)
    place = source.with_name(version)
    place.mkdir()
    for path in source.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((place / load.MANIFEST).read_bytes())
    (place / load.MANIFEST).write_text(json.dumps({**manifest, "version": version}))
    digest = load.sha256(place / load.MANIFEST)
    return BundleRef(version=version, bundle=f"bundles/{version}", manifest_sha256=digest)


def rehashed(deployment: Path, installed: BundleRef) -> BundleRef:
    """Renew the hashes in the manifest after files have been changed; return the new BundleRef."""
    path = folder.bundle_path(deployment, installed) / load.MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["files"] = {name: load.sha256(path.with_name(name)) for name in manifest["files"]}
    path.write_text(json.dumps(manifest))
    return installed.model_copy(update={"manifest_sha256": load.sha256(path)})


def replace_champion(deployment: Path, champion: BundleRef) -> None:
    """Make it the champion, as `deploy` and `promote` do."""
    folder.replace_deployment(
        deployment, folder.with_champion(deployment, champion), "test", "a test"
    )


def challenge(
    deployment: Path, challenger: BundleRef, share: float, mode: str = "split", since: str = "now"
) -> None:
    """Start a test of a challenger, or change its share."""
    test = {**challenger.model_dump(), "share": share, "mode": mode, "since": since}
    before = folder.read_deployment(deployment)
    after = {"challenger": Challenger.model_validate(test)}
    folder.write_deployment(deployment, before.model_copy(update=after))


class Answer(NamedTuple):
    """What a real server answered."""

    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Server(NamedTuple):
    """A real server."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def send(self, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request over a connection of its own."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return Answer(answer.status, answer.headers, answer.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read().decode())

    def ready(self) -> bool:
        """Whether it has a model; false too while nothing listens."""
        try:
            return self.send("/readyz").status == 200
        except OSError:
            return False

    def logged(self, text: str) -> int:
        """How often it logged this; also while it writes a line."""
        return self.log.read_text(encoding="utf-8").count(text)

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]


@contextmanager
def running(deployment: Path, code: str | None = None, **settings: Any) -> Iterator[Server]:
    """Start a real server and wait until it is ready; it is killed if the test does not end it.

    `code` is a program that starts it in another way than `serve`.
    """
    log = deployment.parent / f"log-{time.monotonic_ns()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *(["-c", code] if code else ["-m", cli.__name__, "serve"])],
            env=environment(deployment, log, **settings),
            stderr=output,
        )
    server = Server(process, "", log)
    try:
        server = server._replace(url=until(lambda: _address(process, log)))
        until(server.ready)
        yield server
    finally:
        process.kill()
        process.wait()
        for number in processes(server):  # its workers, if it could not end them
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def _address(process: subprocess.Popen[bytes], log: Path) -> str | None:
    text = log.read_text(encoding="utf-8")
    assert process.poll() is None, text
    address = re.search(r'"message": "listening", "url": "([^"]+)"', text)
    return address[1] if address else None


def environment(deployment: Path, mark: Path, **settings: Any) -> dict[str, str]:
    """The environment with these settings as variables."""
    settings = {"port": 0, "deployment_dir": deployment, "reload_seconds": 0.05, **settings}
    variables = {f"APP_{name.upper()}": str(value) for name, value in settings.items()}
    return {**os.environ, **variables, MARK: str(mark)}


def failed_start(deployment: Path, **settings: Any) -> tuple[int, list[str]]:
    """Start a server that must not start; return its exit code and error messages."""
    command = [sys.executable, "-m", cli.__name__, "serve"]
    variables = environment(deployment, deployment, **settings)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PATIENCE)
    lines = done.stderr.splitlines()
    return done.returncode, [line for line in lines if not line.startswith('{"time"')]


def processes(server: Server) -> list[int]:
    """The ids of a server's running processes, from /proc."""
    mark = f"{MARK}={server.log}".encode()
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            alive = b") Z " not in (path / "stat").read_bytes()
            if alive and mark in (path / "environ").read_bytes().split(b"\0"):
                pids.append(int(path.name))
        except OSError:  # ended meanwhile
            continue
    return pids


class Load:
    """Clients that send requests without pause, until the end of the `with` block."""

    def __init__(self, call: Callable[[], Any], callers: int = 2) -> None:
        self.answers: list[Any] = []
        self._done = threading.Event()
        self._call = call
        self._threads = [threading.Thread(target=self._send) for _ in range(callers)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._done.is_set():
            self.answers.append(self._call())


def memory(pid: int | str = "self") -> float:
    """Resident megabytes of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def close(first: Any, second: Any, relative: float) -> bool:
    """Whether two JSON values agree, numbers within a tolerance."""
    if isinstance(first, dict) and isinstance(second, dict):
        same = first.keys() == second.keys()
        return same and all(close(first[key], second[key], relative) for key in first)
    if isinstance(first, Sequence) and not isinstance(first, str):
        pairs = zip(first, second, strict=False)
        return len(first) == len(second) and all(close(a, b, relative) for a, b in pairs)
    if isinstance(first, float):
        return abs(first - second) <= relative * max(1.0, abs(first))
    return first == second
