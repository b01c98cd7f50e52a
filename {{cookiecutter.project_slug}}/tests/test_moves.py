"""A project works wherever it lies, and what the machine refuses is one line."""

import json
import os
import re
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO, TextIOWrapper
from pathlib import Path
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.client import Client
from {{ cookiecutter.package_name }}.training import runs

from . import servers
from .conftest import CONFIG, FORCE, PROJECT
from .quick import QUICK

AWKWARD = "Präfix #1 50% x"  # of which SQLite's and MLflow's addresses must not trip


def run(command: str, *arguments: str) -> int:
    return cli.main([command, "--config", str(CONFIG), *arguments])


def enter(patch: pytest.MonkeyPatch, folder: Path, options: str = "") -> None:
    """Work in a folder. MLflow keeps a connection for each address, so it gets its own."""
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}{options}")


def locations(folder: Path) -> set[str]:
    """All addresses of artifacts in MLflow's tables, but for its own default experiment's."""
    query = (
        "SELECT artifact_location FROM experiments WHERE experiment_id != 0"
        " UNION SELECT artifact_uri FROM runs UNION SELECT source FROM model_versions"
        " UNION SELECT storage_location FROM model_versions"
    )
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        return {row[0] for row in connection.execute(query)}


def second_run(folder: Path) -> None:
    """Add a run that was not deployed yet."""
    first = next(folder.glob("runs/*/run.json")).parent
    shutil.copytree(first, first.with_name("second"), ignore=shutil.ignore_patterns("bundle"))


def listing(folder: Path) -> dict[Path, bytes]:
    """The content of all files but MLflow's database, which has its own guarantees."""
    files = (path for path in folder.rglob("*") if path.is_file() and "mlflow.db" not in path.name)
    return {path: path.read_bytes() for path in files}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line of standard error that is ours."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("moved", [False, True], ids=["copied", "moved"])
def test_project_works_in_another_folder(
    trained: Path,
    tmp_path: Path,
    moved: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original, place = tmp_path / "original", tmp_path / AWKWARD / "project"
    shutil.copytree(trained, original)
    enter(monkeypatch, original)
    assert run("deploy") == 0  # the copy's own locations
    assert all(place.startswith(original.as_uri()) for place in locations(original))
    monkeypatch.chdir(tmp_path)
    place.parent.mkdir()
    before = listing(original)
    original.rename(place) if moved else shutil.copytree(original, place)
    second_run(place)
    enter(monkeypatch, place)
    assert run("report", "--run", "second") == 0
    assert run("deploy", "--run", "second", *FORCE) == 0
    assert run("evaluate", "--run", "second") == 0
    assert run("rollback", "--reason", "a test") == 0
    assert "warning" not in capsys.readouterr().err
    assert all(location.startswith(place.as_uri()) for location in locations(place))
    assert moved != original.exists()
    assert moved or listing(original) == before
    with servers.started(place / "deployment") as client:
        assert client.get("/readyz").status_code == 200


def test_bundle_is_uploaded_again_where_mlflows_artifacts_are_missing(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(monkeypatch, work)
    assert run("deploy") == 0
    shutil.rmtree(work / "mlartifacts")
    shutil.rmtree(work / "deployment")
    # A process of its own: MLflow keeps a run's place, which is another folder's in this one.
    command = [sys.executable, "-m", cli.__name__, "deploy", "--config", str(CONFIG), *FORCE]
    subprocess.run(command, check=True, timeout=300)
    assert list((work / "mlartifacts").rglob("model.onnx"))


def test_locations_that_were_chosen_by_others_stay(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(monkeypatch, work)
    with closing(sqlite3.connect(work / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = 's3://bucket/mlartifacts'")
    before = locations(work)
    assert run("report") == 0
    assert locations(work) == before


def test_commands_work_on_the_project_of_their_configuration_from_any_folder(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = Path(shutil.copytree(CONFIG.parent, work / "configs")) / "default.yaml"
    (work / "pyproject.toml").touch()
    enter(monkeypatch, work)
    monkeypatch.chdir(elsewhere)
    assert cli.main(["report", "--config", str(config)]) == 0
    assert f"working in {work.resolve()}" in capsys.readouterr().out
    assert list(elsewhere.iterdir()) == []


def test_report_writes_its_figures_to_any_folder(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(monkeypatch, work)
    assert run("report", f"paths.experiments={tmp_path / 'a folder (1)'}") == 0
    links = re.findall(r"!\[.*\]\((\S+)\)", (work / "README.md").read_text(encoding="utf-8"))
    assert len(links) >= 3
    assert all((work / unquote(link)).is_file() for link in links)


def test_terminal_of_another_encoding_gets_question_marks(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(monkeypatch, work)
    output = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(output, encoding="latin-1"))
    assert run("deploy") == 0
    sys.stdout.flush()
    assert b"seed 0 ?" in output.getvalue() or b"seed 1 ?" in output.getvalue()


def test_a_run_needs_no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert dict(runs.git_state()) == {"commit": None, "dirty": None}


@pytest.fixture
def local_server() -> Iterator[str]:
    """A server on this machine whose every response is `{}`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies that refuse everything."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, address)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("proxies")
@pytest.mark.parametrize("excluded", ["", "example.org", "*"])
def test_this_machine_is_reached_without_a_proxy(
    local_server: str, excluded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(local_server) as client:
        assert client.get("/") == {}
    monkeypatch.setenv("NO_PROXY", excluded)
    cli.without_proxy_for_this_machine()  # for MLflow's client and whoever else reads the variables
    for url in (local_server, local_server.replace("127.0.0.1", "localhost")):
        with urllib.request.urlopen(url, timeout=120) as response:
            assert response.status == 200
    assert excluded in os.environ["NO_PROXY"]


@pytest.mark.usefixtures("proxies")
def test_health_check_of_the_image_uses_no_proxy(local_server: str) -> None:
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^HEALTHCHECK.*\\\n\s*CMD (\[.*\])$", text, re.M)
    assert found
    _, *arguments = json.loads(found[1])
    environment = {**os.environ, "APP_PORT": local_server.rpartition(":")[2]}
    subprocess.run([sys.executable, *arguments], env=environment, check=True, timeout=300)


def test_training_after_the_experiment_was_deleted_says_how_to_go_on(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(monkeypatch, work)
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = max(client.search_experiments(), key=lambda one: int(one.experiment_id))
    client.delete_experiment(experiment.experiment_id)
    assert run("train", *QUICK) == 1
    line = one_line(capsys)
    assert f"the experiment {experiment.name} was deleted there; restore it" in line
    assert f"restore --experiment-id {experiment.experiment_id}" in line
    client.restore_experiment(experiment.experiment_id)
    assert run("train", "--resume") == 0


def test_locked_mlflow_database_is_one_line(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(monkeypatch, work, "?timeout=0.1")
    second_run(work)
    with closing(sqlite3.connect(work / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert run("deploy", "--run", "second", *FORCE) == 1
    assert one_line(capsys).endswith("database is locked")
    assert run("deploy", "--run", "second", *FORCE) == 0


def test_mlflow_database_of_another_version_is_one_line(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(monkeypatch, work)
    with closing(sqlite3.connect(work / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert run("deploy") == 1
    assert "ffffffffffff" in one_line(capsys)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Refuse to let any file grow beyond `size` bytes, like a disk without space."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 4000, 30_000])
@pytest.mark.parametrize("command", ["evaluate", "report", "deploy"])
def test_full_disk_is_one_line_and_changes_no_file(
    work: Path,
    command: str,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enter(monkeypatch, work)
    second_run(work)
    before = listing(work)
    arguments = [command, "--run", "second", *(FORCE if command == "deploy" else [])]
    with full_disk(size):
        code = run(*arguments)
    assert code == 1
    one_line(capsys)
    left = {path: content for path, content in listing(work).items() if path in before}
    assert {path for path in before if left.get(path) != before[path]} <= rewritten(work)
    assert not list(work.rglob(f".{os.getpid()}-*"))
    assert run(*arguments) == 0


def rewritten(work: Path) -> set[Path]:
    """Files that a command replaces as a whole before a later one does not fit."""
    return {
        *work.glob("*.md"),
        *work.glob("docs/experiments/README.md"),
        *work.glob("runs/second/evaluation.json"),
        *work.glob("runs/second/outputs.npz"),
    }


@pytest.mark.parametrize("size", [100, 4000])
def test_training_on_a_full_disk_is_one_line_and_can_be_resumed(
    work: Path, size: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(monkeypatch, work)
    with full_disk(size):
        assert run("train", *QUICK, "train.epochs=1", "train.seeds=[0]") == 1
    one_line(capsys)
    assert not list(work.rglob(f".{os.getpid()}-*"))


def test_history_is_not_cut_by_a_full_disk(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(monkeypatch, work)
    history = work / "deployment" / "history.jsonl"
    before = history.read_bytes()
    with full_disk(len(before) + 10):
        assert run("deploy") == 1
    one_line(capsys)
    assert history.read_bytes() == before


@pytest.mark.parametrize("place", ["/proc/nowhere", "occupied/runs"])
def test_folder_that_cannot_be_written_is_one_line(
    work: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(monkeypatch, work)
    (work / "occupied").touch()
    assert run("train", *QUICK, f"paths.runs={place}") in (1, 2)
    assert place.partition("/runs")[0] in one_line(capsys)
