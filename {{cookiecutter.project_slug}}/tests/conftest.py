"""One small training run serves all tests; each test that changes something works on a copy."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle.deployment import champion_path
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.task import data, simulate
from {{ cookiecutter.package_name }}.task.settings import Settings

from . import servers
from .quick import QUICK

PROJECT = Path(__file__).parents[1]
CONFIG = PROJECT / "configs" / "default.yaml"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which train, evaluate, report and deploy have run once with quick settings."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = ["--config", str(CONFIG)]
        assert cli.main(["train", *config, *QUICK]) == 0
        for verb in ("evaluate", "report", "deploy"):
            assert cli.main([verb, *config]) == 0
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in."""
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def deployment(work: Path) -> Path:
    """A copy of its deployment."""
    return work / "deployment"


class Traffic(NamedTuple):
    """Requests' items, as in training and after the world has changed."""

    usual: list[dict[str, Any]]
    shifted: list[dict[str, Any]]


@pytest.fixture(scope="session")
def traffic(trained: Path) -> Traffic:
    """Items of the test split, as `make loop` sends them."""

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        settings = load_settings(Settings, CONFIG, QUICK)
        dataset, rest = data.load(settings.data).holdout(0.9)
        found = [
            [item.model_dump(exclude_unset=True) for item, _ in some(dataset, rest, settings)]
            for some in (simulate.normal_requests, simulate.shifted_requests)
        ]
    return Traffic(*found)


@pytest.fixture
def example(deployment: Path) -> dict[str, Any]:
    """The body of a request that the deployed model can answer."""

    folder, _ = champion_path(deployment)
    return json.loads((folder / "example.json").read_text(encoding="utf-8"))


@pytest.fixture
def client(deployment: Path) -> Iterator[TestClient]:
    """The server in this process."""
    with servers.started(deployment) as client:
        yield client


@pytest.fixture
def server(deployment: Path) -> Iterator[servers.Server]:
    """A real server."""
    with servers.running(deployment) as server:
        yield server
