"""What is registered in MLflow is a model that MLflow itself can load."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle.deployment import champion_path
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.experiments.tracking import Tracker
from {{ cookiecutter.package_name }}.task.contract import Item
from {{ cookiecutter.package_name }}.task.settings import Settings

from .conftest import CONFIG
from .quick import QUICK
from .servers import close

# MLflow warns about a type hint of its own when its pyfunc is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*type hint is inferred as AnyType:UserWarning")


@pytest.fixture
def registered(work: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the champion in the registry."""
    uri = f"sqlite:///{work / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    name = MlflowClient(uri).search_registered_models()[0].name
    return f"models:/{name}@champion"


def test_mlflow_loads_the_model_and_gets_the_servers_answers(
    registered: str, client: TestClient, example: dict[str, Any]
) -> None:
    answers = client.post("/v1/predict", json=example).json()["predictions"]
    model = mlflow.pyfunc.load_model(registered)
    assert close(model.predict(example["items"]), answers, 1e-6)
    assert close(model.predict(pd.DataFrame(example["items"])), answers, 1e-6)
    assert model.input_example == example["items"]
    assert model.metadata.signature.inputs.input_names() == list(Item.model_fields)


def test_registered_model_needs_neither_this_project_nor_its_training_libraries(
    registered: str, tmp_path: Path, example: dict[str, Any]
) -> None:
    folder = Path(download_artifacts(registered, dst_path=str(tmp_path)))
    needed = (folder / "requirements.txt").read_text(encoding="utf-8").split()
    names = {line.partition("==")[0].lower() for line in needed}
    assert {"mlflow", "numpy", "onnx", "onnxruntime", "pydantic"} <= names
    assert not names & {"torch", "matplotlib", "pytest", "setuptools"}
    conda = yaml.safe_load((folder / "conda.yaml").read_text(encoding="utf-8"))
    assert conda["dependencies"][-1]["pip"] == needed
    flavors = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
    assert (folder / flavors["onnx"]["data"]).is_file()
    function = flavors["python_function"]
    code = (
        f"import sys, json; sys.path.insert(0, {str(folder / function['code'])!r})\n"
        f"import {function['loader_module']} as loader\n"
        f"assert loader.__file__.startswith({str(folder)!r})\n"
        f"model = loader._load_pyfunc({str(folder / function['data'])!r})\n"
        "print(json.dumps(model.predict(json.loads(sys.stdin.read()))))"
    )
    without = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(example["items"]),
        capture_output=True,
        text=True,
        env=without,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == len(example["items"])


def test_model_registered_before_there_was_an_mlmodel_can_be_deployed_again(
    work: Path, registered: str
) -> None:
    Tracker(load_settings(Settings, CONFIG, QUICK, {}))  # corrects the addresses in this copy
    client = MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    name = registered.removeprefix("models:/").partition("@")[0]
    version = client.get_model_version_by_alias(name, "champion")
    model = Path(str(version.source).removeprefix("file://"))
    assert model.is_relative_to(work)
    shutil.move(model / "bundle", model.with_name("bundle"))
    shutil.rmtree(model)
    client.delete_registered_model(name)
    client.create_registered_model(name)
    old = f"{str(version.source).removesuffix('model')}bundle"
    client.create_model_version(name, old, version.run_id, version.tags)
    bundle, _ = champion_path(work / "deployment")
    shutil.rmtree(bundle)
    # In a process of its own: MLflow remembers where a run's artifacts were.
    command = [sys.executable, "-m", cli.__name__, "deploy", "--config", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (bundle / "manifest.json").is_file()
    assert not model.exists()
