"""A project's compose.yaml is brought up as it is: no row is lost, and what it retrains is served.

Needs Docker with Compose, or another engine by name, such as COMPOSE=podman-compose; the ports
8000, 5000, 9090 and 3000; and minutes. The images are built unless they are there.
"""

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import demo
import pytest
import yaml
from conftest import ROOT

COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
API, MLFLOW, PROMETHEUS = (f"http://127.0.0.1:{port}" for port in (8000, 5000, 9090))
OWNER = str(os.getuid() or 1000) if sys.platform != "win32" else ""  # services write files as this
QUICK = ["train.seeds=[0]", "model.width=8"]
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

pytestmark = pytest.mark.slow


class Stack(NamedTuple):
    """The project whose services run."""

    project: Path
    python: Path  # with what the project needs

    def compose(self, *arguments: str) -> str:
        """Return what Compose writes. Raises OSError, as while a service starts."""
        done = subprocess.run([*COMPOSE, *arguments], cwd=self.project, capture_output=True)
        if done.returncode:
            raise ChildProcessError(done.stderr.decode())
        return done.stdout.decode()

    def run(self, *arguments: str) -> None:
        """Run a command of the project on this machine, tracked where the services look."""
        env = {**os.environ, "MLFLOW_TRACKING_URI": MLFLOW, "PYTHONPATH": "src"}
        command = [self.python, "-m", "digit_reader.cli", *arguments]
        subprocess.run(command, cwd=self.project, env=env, check=True)
        self.hand_over()

    def hand_over(self) -> None:
        """Let the services write what root wrote here."""
        if os.getuid() == 0:
            subprocess.run(["chown", "--recursive", f"{OWNER}:{OWNER}", self.project], check=True)

    def rows(self, table: str) -> int:
        """Count the rows of a table in the database."""
        psql = "exec -T postgres psql --username=app --dbname=app --tuples-only --command"
        return int(self.compose(*psql.split(), f"SELECT count(*) FROM {table}"))


class Caller(threading.Thread):
    """Predicts and gives feedback until it is stopped; with other items, so that there is drift."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.answered, self.refused = 0, list[str]()
        self._stop_requested = threading.Event()

    def run(self) -> None:
        (item,) = until(lambda: ask(f"{API}/v1/example"))["items"]
        pixels = [[value / 2 for value in row] for row in item["pixels"]]
        while not self._stop_requested.wait(0.02):
            try:
                answer = ask(f"{API}/v1/predict", {"items": [{"pixels": pixels}]})
            except OSError as error:
                self.refused.append(str(error))
                continue
            self.answered += 1
            truth = {"request_id": answer["request_id"], "truth": {"label": "0"}}
            with suppress(OSError):  # 503 while the database is away, as docs/operations.md says
                ask(f"{API}/v1/feedback", {"feedback": [truth]})

    def stop(self) -> int:
        """Return how many predictions were answered."""
        self._stop_requested.set()
        self.join()
        return self.answered


def ask(url: str, body: object = None) -> Any:
    """Return the JSON that is answered. Raises OSError for errors and where nothing listens."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"content-type": "application/json"})
    with DIRECT.open(request, timeout=30) as response:
        return json.load(response)


def until(condition: Callable[[], object], seconds: float = 300) -> Any:
    """Return what is true in the end; errors of connections and of Compose count as false."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if result := condition():
                return result
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.5)


def settings_of(example: str) -> str:
    """Fill in .env.example as its comments say, with retraining every few seconds."""
    values = {"RETRAIN_EVERY_SECONDS": "5", "APP_UID": OWNER, "APP_GID": OWNER}
    values |= {"TORCH_BACKEND": os.environ.get("TORCH_BACKEND", "cpu")}
    values |= {f"{name}_PASSWORD": secrets.token_hex(24) for name in ("POSTGRES", "GRAFANA_ADMIN")}
    lines = [line for line in example.splitlines() if line.partition("=")[0] not in values]
    return "\n".join([*lines, *(f"{name}={value}" for name, value in values.items()), ""])


@pytest.fixture(scope="module")
def stack(environment: Path) -> Iterator[Stack]:
    """All services, with a first model that was hardly trained."""
    version = [*COMPOSE, "version"]
    if not shutil.which(version[0]) or subprocess.run(version, capture_output=True).returncode:
        pytest.skip(f"cannot run {shlex.join(version)}; COMPOSE names another engine")
    shutil.rmtree(folder := ROOT / "build" / "test" / "compose", ignore_errors=True)
    project = demo.bake(folder, "image-classification")
    stack = Stack(project, environment / "python")
    example = (project / ".env.example").read_text(encoding="utf-8")
    (project / ".env").write_text(settings_of(example), encoding="utf-8")
    for name in ("deployment", "tracking"):
        (project / name).mkdir()
    stack.hand_over()
    try:
        stack.compose("up", "--detach")
        until(lambda: DIRECT.open(f"{MLFLOW}/health").read())
        stack.run("train", *QUICK, "train.epochs=1")
        stack.run("deploy", "--force", "--reason", "trained for seconds")
        until(lambda: ask(f"{API}/readyz"))
        yield stack
    finally:
        print(stack.compose("logs", "--tail", "50"))
        stack.compose("down", "--volumes")


def test_every_answer_is_a_row_while_database_and_server_are_restarted(stack: Stack) -> None:
    before, caller = stack.rows("predictions"), Caller()
    caller.start()
    until(lambda: caller.answered > 50)
    stack.compose("restart", "postgres")
    answered = caller.answered
    until(lambda: caller.answered > answered + 50)
    assert caller.refused == []
    stack.compose("stop", "postgres")
    stack.compose("stop", "api")  # what the database did not take waits in the volume
    answered = caller.stop()
    stack.compose("start", "postgres")
    stack.compose("start", "api")
    until(lambda: ask(f"{API}/readyz"))  # the next test begins with a server
    until(lambda: stack.rows("predictions") >= before + answered)
    assert stack.rows("predictions") == before + answered


def test_prometheus_scrapes_the_server_and_evaluates_every_rule(stack: Stack) -> None:
    def query(expression: str) -> list[str]:
        found = ask(f"{PROMETHEUS}/api/v1/query?query={expression}")["data"]["result"]
        return [series["value"][1] for series in found]

    until(lambda: query("up") == query("collector_up") == ["1"])
    groups = ask(f"{PROMETHEUS}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {"ServerDown", "FeatureDrift"} <= {rule["name"] for rule in rules}
    until(lambda: {rule["health"] for rule in rules} == {"ok"})


def test_what_is_retrained_is_served_without_a_failed_request(stack: Stack) -> None:
    caller = Caller()
    caller.start()
    # The labels that the caller sends say that the model is wrong; the next one is trained better.
    config = stack.project / "configs" / "default.yaml"
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["train"] |= {"seeds": [0], "epochs": 10}
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    stack.hand_over()

    def variants() -> set[str]:
        return {model["variant"] for model in ask(f"{API}/v1/models")["models"]}

    until(lambda: variants() == {"champion", "challenger"}, 1200)
    history = (stack.project / "deployment" / "history.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["action"] for line in history.splitlines()][-1] == "challenge"
    assert caller.stop() > 100
    assert caller.refused == []
