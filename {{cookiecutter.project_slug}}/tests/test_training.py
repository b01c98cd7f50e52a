"""Training is exact, can be resumed, and says clearly what went wrong."""

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.arrays import LazyArray
from {{ cookiecutter.package_name }}.config import UserError, WorkError, load_settings
from {{ cookiecutter.package_name }}.interfaces import Metrics, ScoreMetric, Stage
from {{ cookiecutter.package_name }}.settings import TrainSettings
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import batches, checkpoint, evaluate, fit, runs

from .conftest import CONFIG, kill_in_training
from .quick import QUICK


def settings(*overrides: str) -> Settings:
    return load_settings(Settings, CONFIG, [*QUICK, *overrides], {})


def stage(settings: Settings) -> Stage:
    return fit.training_stage(settings, data.load(settings.data))


def same_weights(one: Path, other: Path) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_killed_run_resumes_to_bit_identical_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process is killed in the middle; the resumed run must equal an undisturbed one."""
    overrides = [*QUICK, "train.seeds=[0]", "train.epochs=5"]
    kill_in_training(tmp_path, "train", "--config", str(CONFIG), *overrides)
    (folder,) = tmp_path.glob("runs/*/seed-0")
    assert json.loads((folder / "history.json").read_text())["epoch"] == 2

    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--config", str(CONFIG), "--resume"]) == 0
    whole = tmp_path / "whole"
    before = folder.parent / "pretraining" / "best.safetensors"  # of tasks that have one
    start = before if before.exists() else None
    fit.fit(stage(load_settings(Settings, CONFIG, overrides, {})), 0, whole, start=start)
    for name in ("last.safetensors", "best.safetensors"):
        assert same_weights(folder / name, whole / name)
    assert not list(folder.glob(".*")), "nothing half-written is left"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_a_checkpoint_and_prints_the_resume_command(
    tmp_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    learning_rate, calls = fit.optimizers.learning_rate, 0

    def signalling(train: TrainSettings, step: int, total: int) -> float:
        nonlocal calls
        calls += 1
        if calls == 5:
            os.kill(os.getpid(), number)
        return learning_rate(train, step, total)

    monkeypatch.setattr(fit.optimizers, "learning_rate", signalling)
    before = signal.getsignal(number)
    assert cli.main(["train", "--config", str(CONFIG), *QUICK, "train.batch_size=8"]) == 1
    assert signal.getsignal(number) is before
    (run,) = tmp_path.glob("runs/*")
    errors = capsys.readouterr().err
    assert "nothing is lost; go on with: " in errors
    assert f"train --resume {run.name}" in errors
    (last,) = run.glob("*/last.safetensors")
    assert checkpoint_step(last) == 5


def checkpoint_step(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["about"])["progress"]["step"]


def test_run_stopped_within_an_epoch_resumes_to_bit_identical_weights(tmp_path: Path) -> None:
    ordinary = stage(settings("train.epochs=2", "train.batch_size=8"))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit.fit(ordinary, 0, whole)
    left = 5

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    with pytest.raises(fit.Interrupted):
        fit.fit(ordinary, 0, parts, stop=stop)
    state = fit.fit(ordinary, 0, parts)
    assert state.epoch == 2
    assert same_weights(whole / "last.safetensors", parts / "last.safetensors")


def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path: Path) -> None:
    ordinary = stage(settings("train.epochs=1"))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit.fit(ordinary, seed, tmp_path / name)
    paths = [tmp_path / name / "last.safetensors" for name in "abc"]
    assert same_weights(paths[0], paths[1])
    assert not same_weights(paths[0], paths[2])


def test_training_stops_early_without_improvement(tmp_path: Path) -> None:
    ordinary = stage(settings("train.epochs=40", "train.patience=2", "train.choose_epoch=metric"))
    sign = 1 if ordinary.higher_is_better else -1
    worse = iter(range(0, -100, -1))
    declining = replace(
        ordinary, measure=lambda network: {ordinary.primary_metric: sign * next(worse)}
    )
    seen: list[int] = []
    state = fit.fit(declining, 0, tmp_path, lambda state: seen.append(state.epoch))
    assert state.best_epoch == 1
    assert seen == [1, 2, 3]


def test_later_epoch_is_kept_on_a_tie(tmp_path: Path) -> None:
    ordinary = stage(settings("train.epochs=3"))
    same = replace(ordinary, measure=lambda network: {ordinary.primary_metric: 0.5})
    assert fit.fit(same, 0, tmp_path).best_epoch == 3


@pytest.mark.parametrize(("choice", "epoch"), [("metric", 1), ("proper", 2), ("last", 3)])
def test_setting_decides_which_epoch_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, epoch: int
) -> None:
    """The primary metric is best in epoch 1, the proper score (here a higher one) in epoch 2."""
    proper = ScoreMetric("proper", higher_is_better=True)
    monkeypatch.setattr(fit.objective, "PROPER_SCORE", proper)
    chosen = stage(settings("train.epochs=3", "train.patience=2", f"train.choose_epoch={choice}"))
    sign = 1 if fit.objective.HIGHER_IS_BETTER else -1
    rows = iter([(3, 1), (2, 3), (1, 2)])

    def measure(network: torch.nn.Module) -> Metrics:
        primary, score = next(rows)
        return {fit.objective.PRIMARY_METRIC: sign * primary, "proper": score}

    state = fit.fit(replace(chosen, measure=measure), 0, tmp_path)
    assert (state.epoch, state.best_epoch) == (3, epoch)
    assert state.best == state.history[epoch - 1][chosen.primary_metric]


def test_proper_score_is_among_the_metrics_and_also_chooses_the_seed(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.open_run(settings())
    (name, higher) = evaluate.objective.PROPER_SCORE
    assert all(name in run.history(seed).history[0] for seed in run.settings.train.seeds)
    train = run.settings.train.model_copy(update={"choose_epoch": "proper"})
    run = replace(run, settings=run.settings.model_copy(update={"train": train}))
    states = {seed: replace(run.history(seed), best=float(seed)) for seed in (0, 1)}
    monkeypatch.setattr(runs.Run, "history", lambda self, seed: states[seed])
    assert evaluate.evaluate(run, run.dataset()).chosen_seed == (1 if higher else 0)


def test_error_for_a_nan_loss_says_what_to_change(tmp_path: Path) -> None:
    ordinary = stage(settings("train.epochs=1"))
    broken = replace(ordinary, loss=lambda network, batch: ordinary.loss(network, batch) * math.nan)
    with pytest.raises(WorkError, match=r"seed 0: the loss is nan in epoch 1, step 1; .*train\.lr"):
        fit.fit(broken, 0, tmp_path)


class Body(torch.nn.Module):
    """A network that asks to be pre-trained."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)

    def pretraining(self, settings: Settings, dataset: data.Dataset) -> Stage:
        return Stage(
            name="pretraining",
            train=settings.train,
            data={"x": np.ones((8, 4), np.float32)},
            build=Reconstructs,
            loss=lambda network, batch: (network(batch["x"]) - batch["x"]).square().mean(),
            measure=lambda network: {"loss": network(torch.ones(1, 4)).square().sum().item()},
            primary_metric="loss",
            higher_is_better=False,
        )


class Reconstructs(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def test_network_that_asks_for_pretraining_starts_from_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_epoch = settings("train.epochs=1", f"paths.runs={tmp_path}")
    dataset = data.load(one_epoch.data)
    run = runs.create_run(one_epoch, dataset)
    monkeypatch.setattr(runs.model, "build", lambda settings, contract: Body())
    before, *seeds = runs.training_jobs(run, dataset)
    assert (before.name, before.start) == ("pretraining", None)
    assert [job.name for job in seeds] == ["seed-0", "seed-1"]
    fit.fit(before.stage, before.seed, run.folder / before.name)
    stored = load_file(run.folder / "pretraining" / "best.safetensors")
    assert seeds[0].start is not None
    network = Body()
    checkpoint.load_shared_weights(seeds[0].start, network)
    assert torch.equal(network.body.weight, stored["body.weight"])
    with pytest.raises(UserError, match="no weights in common"):
        checkpoint.load_shared_weights(seeds[0].start, torch.nn.Conv2d(1, 1, 1))


class OnDemand(LazyArray):
    """A column that offers what lazy ones do and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.array[rows]

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(self.array[rows])


def test_columns_made_on_demand_give_bit_identical_weights_and_outputs(tmp_path: Path) -> None:
    ordinary = stage(settings("train.epochs=1"))
    lazy = replace(ordinary, data={name: OnDemand(array) for name, array in ordinary.data.items()})
    for name, each in (("ordinary", ordinary), ("lazy", lazy)):
        fit.fit(each, 0, tmp_path / name)
    paths = [tmp_path / name / "last.safetensors" for name in ("ordinary", "lazy")]
    assert same_weights(*paths)
    network = ordinary.build()
    outputs = [fit.predict(network, each.data, 8) for each in (ordinary, lazy)]
    for name, array in outputs[0].items():
        np.testing.assert_array_equal(array, outputs[1][name])


def test_what_is_made_ahead_comes_in_order_and_its_errors_reach_the_caller() -> None:
    def make(job: int) -> int:
        if job == 3:
            raise OSError("the disk is gone")
        return job * job

    squares = batches.make_ahead(make, range(9))
    assert [next(squares) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(OSError, match="the disk is gone"):
        next(squares)
    assert list(batches.make_ahead(make, [])) == []


def test_each_epoch_visits_every_example_once_in_another_order() -> None:
    orders = [fit.epoch_order(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(100))
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_learning_rate_rises_to_its_peak_and_falls_to_almost_zero() -> None:
    rates = [fit.optimizers.one_cycle(step, 1000, 0.4, 0.25) for step in range(1000)]
    assert max(rates) == rates[250] == pytest.approx(0.4)
    assert rates[0] == pytest.approx(0.4 / 25)
    assert rates[-1] < 0.4 / 1000
    assert rates[:251] == sorted(rates[:251])
    assert rates[250:] == sorted(rates[250:], reverse=True)


def test_error_for_a_damaged_checkpoint_names_the_file(tmp_path: Path) -> None:
    ordinary = stage(settings("train.epochs=1"))
    fit.fit(ordinary, 0, tmp_path)
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last\.safetensors: is not a readable checkpoint"):
        fit.fit(ordinary, 0, tmp_path)


def test_checkpoints_hold_no_pickled_objects(trained: Path) -> None:
    """safetensors' own reader knows tensors and text, nothing that could run."""
    paths = list(trained.glob("runs/*/seed-*/*.safetensors"))
    assert len(paths) == 4
    for path in paths:
        assert load_file(path)


def test_resumed_run_refuses_new_settings(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--config", str(CONFIG), "train.lr=1", "--resume"]) == 2
    assert "keeps its settings" in capsys.readouterr().err


def test_run_refuses_data_that_has_changed(work: Path) -> None:
    run = runs.open_run(settings())
    other = run.info.data.model_copy(update={"fingerprint": "0" * 64})
    run = replace(run, info=run.info.model_copy(update={"data": other}))
    with pytest.raises(UserError, match="the data has changed since this run was started"):
        run.dataset()


def test_error_for_an_unknown_run_names_it(work: Path) -> None:
    with pytest.raises(UserError, match="nosuch: no such run"):
        runs.open_run(settings(), "nosuch")
    with pytest.raises(UserError, match="no run here yet"):
        runs.open_run(settings("paths.runs=empty"))


def test_unfinished_run_is_not_evaluated(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next(work.glob("runs/*/seed-1/best.safetensors")).unlink()
    assert cli.main(["evaluate", "--config", str(CONFIG)]) == 2
    assert "go on with: train --resume" in capsys.readouterr().err
