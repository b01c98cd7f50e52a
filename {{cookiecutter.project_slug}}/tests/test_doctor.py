"""`doctor` finds what would spoil a training, and is quiet about a healthy project."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.experiments.diagnosis_plot import plot_diagnosis
from {{ cookiecutter.package_name }}.task import data, inspection, model, objective
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import dataset as loading
from {{ cookiecutter.package_name }}.training.diagnosis import Check, Diagnosis, diagnose

from .conftest import CONFIG
from .quick import QUICK

SETTINGS = load_settings(Settings, CONFIG, QUICK, {})
LOSS = objective.loss
BUILD = model.build
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return data.load(SETTINGS.data)


def checks(dataset: data.Dataset) -> dict[str, Check]:
    return {check.name: check for check in diagnose(SETTINGS, dataset, Diagnosis(1.0))}


def check_of(name: str, dataset: data.Dataset, settings: Settings = SETTINGS) -> Check:
    """The check of this name; those after it are not made."""
    checks = diagnose(settings, dataset, Diagnosis(1.0))
    return next(check for check in checks if check.name == name)


def wrapped(change: Callable[[Any], Any]) -> Callable[..., nn.Module]:
    """Build the task's network with `change` applied to its output."""

    def build(settings: Settings, contract: Any) -> nn.Module:
        network = BUILD(settings, contract)
        network.register_forward_hook(lambda module, inputs, output: change(output))
        return network

    return build


def test_a_healthy_project_passes_and_is_drawn(
    dataset: data.Dataset, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "--config", str(CONFIG), *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("error")]
    found = {line.split()[0] for line in lines}
    assert found >= {"ok", "written:"}
    picture = imread(tmp_path / "docs" / "experiments" / "doctor.png")
    assert picture.shape[1] > 600
    assert picture.min() != picture.max()
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"doctor.png"}, "it writes no run and tracks nothing"


def test_the_same_seed_gives_the_same_findings(dataset: data.Dataset) -> None:
    first, second = checks(dataset), checks(dataset)
    del first["time"], second["time"]
    assert first == second


def test_a_loss_of_the_wrong_sign_is_found(dataset: data.Dataset, monkeypatch: Patch) -> None:
    monkeypatch.setattr(objective, "loss", lambda *arguments: -LOSS(*arguments))
    check = check_of("loss", dataset)
    assert check.level == "error"
    assert "sign" in check.advice


def test_a_network_that_ends_with_softmax_is_found(
    dataset: data.Dataset, monkeypatch: Patch
) -> None:
    if "label" not in dataset.train:
        pytest.skip("no classes")
    monkeypatch.setattr(model, "build", wrapped(lambda logits: logits.softmax(dim=1)))
    check = check_of("one batch", dataset)
    assert check.level == "error"
    assert "softmax" in check.advice


def test_a_loss_that_takes_softmax_twice_is_found(
    dataset: data.Dataset, monkeypatch: Patch
) -> None:
    if "label" not in dataset.train:
        pytest.skip("no classes")

    def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        class Probabilities(nn.Module):
            def forward(self, *inputs: Tensor) -> Tensor:
                return network(*inputs).softmax(dim=1)

            def __getattr__(self, name: str) -> Any:
                return getattr(network, name)

        return LOSS(settings, Probabilities(), batch)

    monkeypatch.setattr(objective, "loss", loss)
    check = check_of("loss", dataset)
    assert check.level == "error"
    assert "softmax" in check.advice


def test_a_frozen_layer_is_named(dataset: data.Dataset, monkeypatch: Patch) -> None:
    names: list[str] = []

    def build(settings: Settings, contract: Any) -> nn.Module:
        network = BUILD(settings, contract)
        name, parameter = next(iter(network.named_parameters()))
        parameter.requires_grad_(False)
        names.append(name)
        return network

    monkeypatch.setattr(model, "build", build)
    check = check_of("frozen layers", dataset)
    assert check.level == "error"
    assert names[0] in check.text


def test_a_weight_that_no_gradient_reaches_is_named(
    dataset: data.Dataset, monkeypatch: Patch
) -> None:
    def build(settings: Settings, contract: Any) -> nn.Module:
        network = BUILD(settings, contract)
        network.unused = nn.Linear(3, 3)
        return network

    monkeypatch.setattr(model, "build", build)
    check = check_of("gradients", dataset)
    assert check.level == "error"
    assert "unused.weight" in check.text


def test_a_learning_rate_a_hundred_times_too_high_is_found(dataset: data.Dataset) -> None:
    train = SETTINGS.train.model_copy(update={"lr": 100 * SETTINGS.train.lr})
    settings = SETTINGS.model_copy(update={"train": train})
    check = check_of("learning rate", dataset, settings)
    assert check.level == "error"
    assert "set train.lr to" in check.advice


def test_shuffled_labels_are_found(dataset: data.Dataset) -> None:
    if "label" not in dataset.train:
        pytest.skip("no labels")
    generator = np.random.default_rng(0)
    shuffled = {
        name: {**split, "label": generator.permutation(split["label"])}
        for name, split in (("train", dataset.train), ("validation", dataset.validation))
    }
    check = check_of("targets", replace(dataset, **shuffled))
    assert check.level == "error"
    assert "do not depend on the inputs" in check.text


def test_dead_units_are_found_in_the_layer_that_has_them(
    dataset: data.Dataset, monkeypatch: Patch
) -> None:
    class Dead(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network
            self.dead = nn.ReLU()

        def forward(self, *inputs: Tensor) -> Tensor:
            output = self.network(*inputs)
            return output + self.dead(output - 1e6)

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("network"), name)

    monkeypatch.setattr(model, "build", lambda *arguments: Dead(BUILD(*arguments)))
    check = check_of("dead units", dataset)
    assert check.level == "error"
    assert "dead.relu" in check.text


def test_test_rows_that_are_in_training_stop_it(
    dataset: data.Dataset,
    tmp_path: Path,
    monkeypatch: Patch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not inspection.EXAMPLE:
        pytest.skip("rows of this task may repeat")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_data", lambda _: replace(dataset, test=dataset.train))
    assert cli.main(["doctor", "--config", str(CONFIG), *QUICK]) == 2
    assert "are in the training split too" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_found_and_drawn(
    dataset: data.Dataset, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(objective, "loss", lambda *arguments: LOSS(*arguments) * torch.nan)
    found = Diagnosis(1.0)
    levels = {check.name: check.level for check in diagnose(SETTINGS, dataset, found)}
    assert levels == {"initial loss": "error"}
    assert found.failed
    plot_diagnosis(found).canvas.draw()
