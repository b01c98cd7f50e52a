"""One small training run serves all tests; each test that changes something works on a copy."""

import shutil
from pathlib import Path

import pytest

from {{ cookiecutter.package_name }} import cli

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
