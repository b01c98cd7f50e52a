"""Train once for all tests; a test that changes something works on a copy."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle.deployment import champion_path
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task.settings import Settings

from . import quick, servers

PROJECT = Path(__file__).parents[1]
# A copy outside of the project: with it, commands work in the tests' folders, not in the project.
CONFIGS = TemporaryDirectory(prefix="configs-")
CONFIG = Path(shutil.copytree(PROJECT / "configs", Path(CONFIGS.name) / "configs")) / "default.yaml"


FORCE = ["--force", "--reason", "trained for seconds"]  # it may be worse than the baselines


KILLED = """
import json, os, sys
from pathlib import Path
from {package} import cli
from {package}.training import fit

def histories():
    return set(Path().glob("runs/*/seed-0/history.json"))

def learning_rate(*arguments):
    global steps
    for path in histories() - before:
        if json.loads(path.read_text())["epoch"] == 2:
            steps += 1
            if steps == 2:
                os.kill(os.getpid(), 9)
    return original(*arguments)

original, before, steps = fit.optimizers.learning_rate, histories(), 0
fit.optimizers.learning_rate = learning_rate
sys.exit(cli.main(sys.argv[1:]))
"""


def kill_in_training(folder: Path, *arguments: str) -> None:
    """Run a command in a process of its own that is killed in the middle of the third epoch."""
    command = [sys.executable, "-c", KILLED.format(package=cli.__package__), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert abs(done.returncode) == 9, done.stderr


def state_quick_data(config: Path) -> None:
    """Write the tests' data into a configuration instead of what a person set in it.

    So tests keep their settings when default.yaml names a person's own data. The data is written
    because a run is found by the data of its configuration.
    """
    overrides = [text for text in quick.QUICK if text.startswith("data.")]
    stated = {"name": yaml.safe_load(config.read_text(encoding="utf-8"))["name"]}
    config.write_text(yaml.safe_dump(stated), encoding="utf-8")
    dumped = load_settings(Settings, config, overrides, {}).model_dump()  # paths stay absolute
    plain = json.loads(json.dumps({**stated, "data": dumped["data"]}, default=str))
    config.write_text(yaml.safe_dump(plain), encoding="utf-8")


state_quick_data(CONFIG)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run train, evaluate, report and deploy once, with quick settings; return the folder."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = ["--config", str(CONFIG)]
        assert cli.main(["train", *config, *quick.QUICK]) == 0
        for command in ("evaluate", "report"):
            assert cli.main([command, *config]) == 0
        assert cli.main(["deploy", *config, *FORCE]) == 0
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy that folder and change into the copy."""
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def deployment(work: Path) -> Path:
    """Return the deployment folder of the copy."""
    return work / "deployment"


@pytest.fixture(scope="session")
def request_items() -> list[dict[str, Any]]:
    """Build items for requests from the test split."""
    settings = load_settings(Settings, CONFIG, quick.QUICK, {})
    return quick.request_items(data.load(settings.data))[:50]


@pytest.fixture
def example(deployment: Path) -> dict[str, Any]:
    """Return the body of a valid request."""
    folder, _ = champion_path(deployment)
    return json.loads((folder / "example.json").read_text(encoding="utf-8"))


@pytest.fixture
def client(deployment: Path) -> Iterator[TestClient]:
    """Run the application in this process."""
    with servers.started(deployment) as client:
        yield client


@pytest.fixture
def server(deployment: Path) -> Iterator[servers.Server]:
    """Run a real server."""
    with servers.running(deployment) as server:
        yield server
