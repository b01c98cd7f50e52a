"""Servers to test, in this process and as real ones, and what is asked of them."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle import load
from {{ cookiecutter.package_name }}.bundle.deployment import BundleRef, Challenger
from {{ cookiecutter.package_name }}.serving import app
from {{ cookiecutter.package_name }}.serving.settings import ServerSettings

T = TypeVar("T")
MARK = "TEST_SERVER"  # in the environment of a server's processes, to find those that are left


def until(found: Callable[[], T], seconds: float = 30) -> T:
    """The first true value of `found`."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return value


@contextmanager
def started(deployment: Path, **settings: Any) -> Iterator[TestClient]:
    """The application in this process."""
    given = {"reload_seconds": 0.02, "log_seconds": 0.02, **settings}
    application = app.create_app(ServerSettings(deployment_dir=deployment, **given))
    with TestClient(application, raise_server_exceptions=False) as client:
        seen: set[tuple[str, str, int]] = set()

        def note(answer: Any) -> None:
            seen.add((answer.request.url.path, answer.request.method.lower(), answer.status_code))

        client.event_hooks = {"response": [note]}
        yield client
        client.event_hooks = {}
        assert_documented(client, seen)


def assert_documented(client: TestClient, seen: set[tuple[str, str, int]]) -> None:
    """Whatever a known route answers stands in the documentation, but for faults of our own."""
    paths = client.get("/openapi.json").json()["paths"]
    for path, method, status in seen:
        if method in paths.get(path, {}) and status != 500:
            assert str(status) in paths[path][method]["responses"], f"{method} {path}: {status}"


def inside(client: TestClient) -> app.Application:
    """The application that a client of `started` talks to."""
    return cast(app.Application, client.app)


def sample(client: TestClient, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    return total(client.get("/metrics").text, name, **labels)


def total(text: str, name: str, **labels: str) -> float:
    """The same of a text that Prometheus reads."""
    found = 0.0
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
            found += float(value)
    return found


def log_rows(path: Path | str = "predictions.db") -> list[dict[str, Any]]:
    """All rows of the prediction log, in the order in which they were written."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM predictions ORDER BY id")
        return [dict(row) for row in rows]


def another(deployment: Path, version: str) -> BundleRef:
    """A copy of the champion's bundle under another version, installed beside it."""
    source, _ = folder.champion_path(deployment)
    place = source.with_name(version)
    place.mkdir()
    for path in source.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((place / load.MANIFEST).read_bytes())
    (place / load.MANIFEST).write_text(json.dumps({**manifest, "version": version}))
    digest = load.sha256(place / load.MANIFEST)
    return BundleRef(version=version, bundle=f"bundles/{version}", manifest_sha256=digest)


def remade(deployment: Path, installed: BundleRef) -> BundleRef:
    """The same after its manifest has been told of its files' new content."""
    path = folder.bundle_path(deployment, installed) / load.MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["files"] = {name: load.sha256(path.with_name(name)) for name in manifest["files"]}
    path.write_text(json.dumps(manifest))
    return installed.model_copy(update={"manifest_sha256": load.sha256(path)})


def crown(deployment: Path, champion: BundleRef) -> None:
    """Deploy it, as `deploy` and `promote` do."""
    folder.replace_deployment(
        deployment, folder.with_champion(deployment, champion), "test", "a test"
    )


def challenge(
    deployment: Path, challenger: BundleRef, share: float, mode: str = "split", since: str = "now"
) -> None:
    """Let the champion be challenged from now on."""
    test = {**challenger.model_dump(), "share": share, "mode": mode, "since": since}
    found = folder.read_deployment(deployment)
    changed = {"challenger": Challenger.model_validate(test)}
    folder.write_deployment(deployment, found.model_copy(update=changed))


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

    def ask(self, path: str, body: Any = None, **headers: str) -> Answer:
        """Its answer, over a connection of its own."""
        data = None if body is None else json.dumps(body).encode()
        given = {"content-type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, given)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(answer.status, answer.headers, answer.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read().decode())

    def ready(self) -> bool:
        """Whether it has a model; false as well while nobody answers."""
        try:
            return self.ask("/readyz").status == 200
        except OSError:
            return False

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]


@contextmanager
def running(deployment: Path, **settings: Any) -> Iterator[Server]:
    """A real server that is ready; its process is ended if the test did not."""
    log = deployment.parent / f"log-{time.monotonic_ns()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", cli.__name__, "serve"],
            env=environment(deployment, log, **settings),
            stderr=output,
        )
    server = Server(process, "", log)
    try:
        server = server._replace(url=until(lambda: _address(process, log), 60))
        until(server.ready, 60)
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
    found = re.search(r'"message": "listening", "url": "([^"]+)"', text)
    return found[1] if found else None


def environment(deployment: Path, mark: Path, **settings: Any) -> dict[str, str]:
    """Variables with these settings."""
    given = {"port": 0, "deployment_dir": deployment, "reload_seconds": 0.05, **settings}
    variables = {f"APP_{name.upper()}": str(value) for name, value in given.items()}
    return {**os.environ, **variables, MARK: str(mark)}


def refused(deployment: Path, **settings: Any) -> tuple[int, list[str]]:
    """Exit code and last words of a server that should not start."""
    command = [sys.executable, "-m", cli.__name__, "serve"]
    given = environment(deployment, deployment, **settings)
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    return done.returncode, [line for line in lines if not line.startswith('{"time"')]


def processes(server: Server) -> list[int]:
    """The numbers of a server's living processes, from /proc."""
    wanted = f"{MARK}={server.log}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            alive = b") Z " not in (path / "stat").read_bytes()
            if alive and wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:  # ended meanwhile
            continue
    return found


class Load:
    """Callers who ask without pause until told to stop."""

    def __init__(self, ask: Callable[[], Any], callers: int = 2) -> None:
        self.answers: list[Any] = []
        self._done = threading.Event()
        self._ask = ask
        self._threads = [threading.Thread(target=self._go_on) for _ in range(callers)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self) -> None:
        while not self._done.is_set():
            self.answers.append(self._ask())


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
