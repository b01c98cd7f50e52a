"""Several processes train one network as one process does.

The tests start this module with `torchrun`; `train_in_processes` is what each process runs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from {{ cookiecutter.package_name }}.config import WorkError, load_settings
from {{ cookiecutter.package_name }}.interfaces import Stage
from {{ cookiecutter.package_name }}.settings import TrainSettings
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import fit, processes, runs

from .conftest import CONFIG
from .quick import QUICK

# 33 examples: the last step has a single one, which leaves the second process nothing to do
TRAIN = TrainSettings(epochs=3, batch_size=8, patience=3, device="cpu")
TOLERANCE = 1e-5  # of each weight; the sums over a step's examples are rounded in another order


def stage(train: TrainSettings = TRAIN, noise: float = 0.0) -> Stage:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(33, 4)).astype(np.float32)

    def loss(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        shaken = batch["x"] + noise * torch.randn_like(batch["x"])
        return (network(shaken)[:, 0] - batch["x"].prod(dim=1)).square().mean()

    return Stage(
        name="training",
        train=train,
        data={"x": x},
        build=lambda: torch.nn.Sequential(
            torch.nn.Unflatten(1, (2, 2, 1)),
            torch.nn.Conv2d(2, 16, (2, 1)),  # its weights are laid out in another order
            torch.nn.Flatten(),
            torch.nn.Tanh(),
            torch.nn.Linear(16, 1),
        ),
        loss=loss,
        measure=lambda network: {"size": network(torch.ones(1, 4)).square().sum().item()},
        primary_metric="size",
        higher_is_better=False,
    )


ALL = TRAIN.model_copy(update={"accumulate": 2, "ema": 0.9, "no_decay": True})


def outputs() -> dict[str, np.ndarray]:
    settings = load_settings(Settings, CONFIG, QUICK, {})
    dataset = data.load(settings.data)
    fit.seed_everything(0)
    network = fit.training_stage(settings, dataset).build()
    return fit.predict(network, dataset.validation, 8)


def stop_after(steps: int, rank: int = 0):
    """Return a `stop` that becomes true in one of the processes alone."""
    left = iter(range(steps))
    return lambda: processes.rank() == rank and next(left, None) is None


def train_in_processes(folder: Path) -> None:
    if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
        return wait_for_the_end(folder)
    with processes.connected():
        fit.fit(stage(), 0, folder / "two")
        fit.fit(stage(ALL, noise=0.5), 0, folder / "whole")
        for train, noise, name in ((ALL, 0.5, "parts"), (TRAIN, 0.0, "fewer")):
            try:
                fit.fit(stage(train, noise), 0, folder / name, stop=stop_after(7, rank=1))
            except fit.Interrupted:
                (folder / f"interrupted-{name}-{processes.rank()}").touch()
        fit.fit(stage(ALL, noise=0.5), 0, folder / "parts")

        (folder / f"draw-{processes.rank()}").write_text(str(torch.rand(1).item()))
        predicted = outputs()
        if processes.rank() == 0:
            save_file({k: torch.from_numpy(v) for k, v in predicted.items()}, folder / "outputs")

        plain, steps = stage(), iter(range(100))
        broken = replace(
            plain,
            loss=lambda network, batch: (
                plain.loss(network, batch)
                * (torch.nan if processes.rank() == 1 and next(steps) == 6 else 1)
            ),
        )
        try:
            fit.fit(broken, 0, folder / "broken")
        except WorkError as error:
            (folder / f"error-{processes.rank()}").write_text(str(error))

        if processes.rank() == 1:
            os._exit(3)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by which torchrun ends the others
        try:
            processes.any_process(False)
        except WorkError as error:
            (folder / "lost").write_text(str(error))


def wait_for_the_end(folder: Path) -> None:
    """What processes do that torchrun has started again, until it is killed."""
    with processes.connected(), runs.stop_on_signals() as stop:
        (folder / f"again-{processes.rank()}").touch()
        while not processes.any_process(stop()):
            time.sleep(0.05)
        (folder / f"stopped-{processes.rank()}").touch()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", "1", "-m", __name__, str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 600
        while not all((folder / f"again-{rank}").exists() for rank in (0, 1)):
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        process.kill()
        _, errors = process.communicate(timeout=600)  # until its processes have ended, too
    assert (folder / "again-0").exists(), errors
    return folder


def weights(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    return {key: value for key, value in load_file(path).items() if key.startswith(prefix)}


def largest_difference(one: Path, other: Path) -> float:
    left, right = weights(one, "network."), weights(other, "network.")
    return max((left[key] - right[key]).abs().max().item() for key in left)


def test_two_processes_give_the_weights_of_one_within_the_tolerance(
    folder: Path, tmp_path: Path
) -> None:
    state = fit.fit(stage(), 0, tmp_path)
    two = folder / "two" / "last.safetensors"
    difference = largest_difference(two, tmp_path / "last.safetensors")
    assert 0 < difference < TOLERANCE, "0 would mean that only one process has worked"
    history = progress(two)["history"]
    for row, other in zip(state.history, history, strict=True):
        assert row == pytest.approx(other, abs=TOLERANCE)


def progress(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["about"])["progress"]


def test_training_resumed_by_as_many_processes_is_bit_identical(folder: Path) -> None:
    """With noise in the loss: each process goes on with its own random numbers."""
    left, right = (folder / name / "last.safetensors" for name in ("whole", "parts"))
    assert (folder / "interrupted-parts-0").exists(), "a stop in one process stops all"
    assert (folder / "interrupted-parts-1").exists()
    one, other = load_file(left), load_file(right)
    assert one.keys() == other.keys()
    assert any(key.startswith("random-1.") for key in one)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert progress(left)["history"] == progress(right)["history"]


def test_training_resumed_by_fewer_processes_goes_on_with_the_same_examples(
    folder: Path, tmp_path: Path
) -> None:
    last = folder / "fewer" / "last.safetensors"
    assert (progress(last)["epoch"], progress(last)["step"]) == (1, 2)
    fit.fit(stage(), 0, folder / "fewer")
    fit.fit(stage(), 0, tmp_path)
    assert largest_difference(last, tmp_path / "last.safetensors") < TOLERANCE


def test_evaluation_in_two_processes_has_every_row_once_and_in_order(folder: Path) -> None:
    joined = load_file(folder / "outputs")
    for name, array in outputs().items():
        assert array.shape == joined[name].shape
        np.testing.assert_allclose(array, joined[name], rtol=1e-4, atol=1e-5)


def test_processes_draw_different_random_numbers(folder: Path) -> None:
    draws = [(folder / f"draw-{rank}").read_text() for rank in (0, 1)]
    assert draws[0] != draws[1]


def test_value_that_is_not_finite_in_one_process_stops_all_at_its_step(folder: Path) -> None:
    for rank in (0, 1):
        assert "in epoch 2, step 3;" in (folder / f"error-{rank}").read_text()
    assert progress(folder / "broken" / "last.safetensors")["epoch"] == 1


def test_process_that_loses_another_ends_with_an_error(folder: Path) -> None:
    assert "lost the other processes" in (folder / "lost").read_text()


def test_processes_started_again_connect_and_end_with_a_killed_torchrun(folder: Path) -> None:
    for rank in (0, 1):
        assert (folder / f"again-{rank}").exists()
        assert (folder / f"stopped-{rank}").exists()


def test_processes_that_cannot_connect_end_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_url: str) -> None:
        raise RuntimeError("Unable to find address for: nosuch\nmore")

    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.modules["torch.distributed.rendezvous"], "rendezvous", refuse)
    with pytest.raises(WorkError, match=r"cannot connect: .*nosuch$"), processes.connected():
        pass


if __name__ == "__main__":
    train_in_processes(Path(sys.argv[1]))
