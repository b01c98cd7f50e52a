"""The servers that are compared: how each is started, and whether its answers are right."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
from environments import BUILD, OURS, PEERS, PROJECT, Model, python

TOLERANCE = 1e-4  # torch and ONNX Runtime round differently
START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A way to serve a model; one with `models` False answers the same to everything."""

    name: str
    family: str
    command: list[str]
    path: str
    models: bool = True


def uvicorn(application: str) -> list[str]:
    """One process, without a line per request: what speaks for the peers."""
    fast = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    return ["-m", "uvicorn", application, "--host", "127.0.0.1", "--port", "PORT", *fast]


def bentoml() -> list[str]:
    place = ["--host", "127.0.0.1", "--port", "PORT"]
    return ["-m", "bentoml", "serve", "bentoml_batched:Digits", *place]


HELLO, BARE = "hello-world FastAPI", "bare ASGI"
PLAIN, ONNX = "FastAPI + torch, def", "FastAPI + ONNX Runtime"
SERVERS = [
    Server(OURS, OURS, ["-m", "bench.cli", "serve", "port=PORT"], "/v1/predict"),
    Server(PLAIN, "torch", uvicorn("fastapi_torch:app"), "/def"),
    Server("FastAPI + torch, async", "torch", uvicorn("fastapi_torch:app"), "/async"),
    Server(ONNX, "onnx", uvicorn("fastapi_onnx:app"), "/predict"),
    Server("LitServe, batched", "litserve", ["litserve_batched.py", "PORT"], "/predict"),
    Server("BentoML, batched", "bentoml", bentoml(), "/predict"),
    Server(HELLO, "hello", uvicorn("hello:app"), "/", models=False),
    Server(BARE, "hello", uvicorn("hello:bare"), "/", models=False),
]


@dataclass(frozen=True)
class Started:
    """A server that has given its first right answer."""

    server: Server
    model: Model
    pid: int
    port: int
    scratch: Path
    cold_start: float  # seconds from its start to that answer

    def target(self) -> measure.Target:
        """What wrk has to know."""
        url = f"http://127.0.0.1:{self.port}{self.server.path}"
        bodies = self.model.bodies if self.server.models else None
        return measure.Target(url, bodies, self.pid, self.scratch / "predictions.db")

    def check(self) -> None:
        """Ask every request once; ends the program when an answer is wrong."""
        for body, right in requests(self.server, self.model):
            if reason := wrong(ask(self.port, self.server.path, body), right):
                sys.exit(f"error: {self.server.name}, {self.model.name}: {reason}")


def prepared(name: str, model: Model) -> tuple[Path, dict[str, str]]:
    """An empty folder, where our server has its prediction log, and the variables for a server."""
    scratch = BUILD / "scratch" / name.replace(" ", "-")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    # Installed packages have their byte code; so shall what is run from a folder.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return scratch, {
        **kept,
        "MODEL": str(model.folder),
        "PYTHONPATH": str(PROJECT / "src"),
        "APP_DEPLOYMENT_DIR": str(model.folder / "deployment"),
        "BENTOML_DO_NOT_TRACK": "true",
    }


@contextmanager
def running(server: Server, model: Model) -> Iterator[Started]:
    """The server, alone on the machine; nothing of it is left when the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scratch, environment = prepared(server.name, model)
    command = [str(port) if part == "PORT" else part for part in server.command]
    command = [part.replace("port=PORT", f"port={port}") for part in command]
    first = requests(server, model)[0]
    with (scratch / "output").open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [python(server.family), *command],
            cwd=scratch if server.family == OURS else PEERS,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _until_right(process, port, server.path, *first, scratch / "output")
            seconds = time.perf_counter() - started
            yield Started(server, model, process.pid, port, scratch, seconds)
        finally:
            _stop(process)


def _until_right(
    process: subprocess.Popen[bytes],
    port: int,
    path: str,
    body: bytes | None,
    right: Any,
    log: Path,
) -> None:
    deadline, reason = time.monotonic() + START_SECONDS, "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if (reason := wrong(ask(port, path, body), right)) is None:
                return
        except (OSError, http.client.HTTPException):
            pass  # it does not listen yet
        time.sleep(0.005)
    sys.exit(
        f"error: {log}: the server does not answer rightly: {reason}\n{log.read_text()[-3000:]}"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it started."""
    family = measure.tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:  # none should be left
        if process.pid == measure.session(pid):
            os.kill(pid, signal.SIGKILL)


def requests(server: Server, model: Model) -> list[tuple[bytes | None, Any]]:
    """What is asked, and the right answer to it."""
    if not server.models:
        return [(None, {"hello": "world"})]
    lines = model.bodies.read_bytes().splitlines()
    return list(zip(lines, model.reference(), strict=True))


def ask(port: int, path: str, body: bytes | None) -> Any:
    """The answer to one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        method = "GET" if body is None else "POST"
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    return json.loads(content) if answer.status == 200 else f"{answer.status}: {content[:300]!r}"


def wrong(answer: Any, right: dict[str, Any]) -> str | None:
    """Why an answer is not the right one, None when it is."""
    if answer == right:
        return None
    try:
        (found,) = answer["predictions"] if isinstance(answer, dict) else answer
        shares: dict[str, float] = found["probabilities"]
        label, probability = found["label"], found["probability"]
    except (KeyError, TypeError, ValueError):
        return f"{str(answer)[:300]} is no answer"
    best = max(right, key=lambda name: right[name])
    far = max(abs(shares.get(name, -1.0) - value) for name, value in right.items())
    if far > TOLERANCE or abs(probability - right[best]) > TOLERANCE or len(shares) != len(right):
        return f"a probability is off by {far:.1e}"
    return None if label == best else f"the label is {label}, right is {best}"
