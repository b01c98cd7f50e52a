"""Training: exact, resumable, and clear about what went wrong."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import UserError, WorkError, load
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import evaluate, loop, runs

from .conftest import CONFIG
from .quick import QUICK


def settings(*overrides: str) -> Settings:
    return load(Settings, CONFIG, [*QUICK, *overrides], {})


def same_weights(one: Path, other: Path) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", cli.__name__, "train", "--config", str(CONFIG)]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *arguments], cwd=folder, text=True, stdout=pipe, stderr=pipe)


def wait_for_epoch(process: subprocess.Popen[str], folder: Path, epoch: int) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for path in folder.glob("runs/*/seed-0/history.json"):
            if json.loads(path.read_text())["epoch"] >= epoch:
                return path.parent
        time.sleep(0.01)
    raise AssertionError(f"no epoch {epoch}: {process.communicate()}")


def test_a_run_that_was_killed_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process is killed in the middle; the resumed run must equal an undisturbed one."""
    overrides = [*QUICK, "train.seeds=[0]", "train.epochs=20"]
    with start(tmp_path, *overrides) as process:
        folder = wait_for_epoch(process, tmp_path, 2)
        process.kill()
    assert json.loads((folder / "history.json").read_text())["epoch"] < 20, "killed too late"

    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--config", str(CONFIG), "--resume"]) == 0
    wanted = load(Settings, CONFIG, overrides, {})
    whole = tmp_path / "whole"
    loop.fit(wanted, data.load(wanted.data), 0, whole)
    for name in ("last.safetensors", "best.safetensors"):
        assert same_weights(folder / name, whole / name)
    assert not list(folder.glob(".*")), "nothing half-written is left"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(
    tmp_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    one_cycle, calls = loop.one_cycle, 0

    def interrupted(step: int, total: int, peak: float, warmup: float) -> float:
        nonlocal calls
        calls += 1
        if calls == 5:
            os.kill(os.getpid(), number)
        return one_cycle(step, total, peak, warmup)

    monkeypatch.setattr(loop, "one_cycle", interrupted)
    before = signal.getsignal(number)
    assert cli.main(["train", "--config", str(CONFIG), *QUICK]) == 1
    assert signal.getsignal(number) is before
    (run,) = tmp_path.glob("runs/*")
    errors = capsys.readouterr().err
    assert "nothing is lost; go on with: " in errors
    assert f"train --resume {run.name}" in errors
    assert checkpoint_step(run / "seed-0" / "last.safetensors") == 5


def checkpoint_step(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["about"])["progress"]["step"]


def test_a_run_stopped_in_the_middle_of_an_epoch_resumes_to_the_same_bits(tmp_path: Path) -> None:
    wanted = settings("train.epochs=2")
    dataset = data.load(wanted.data)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loop.fit(wanted, dataset, 0, whole)
    left = 5

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    with pytest.raises(loop.Interrupted):
        loop.fit(wanted, dataset, 0, parts, stop=stop)
    state = loop.fit(wanted, dataset, 0, parts)
    assert state.epoch == 2
    assert same_weights(whole / "last.safetensors", parts / "last.safetensors")


def test_seeds_repeat_and_differ(tmp_path: Path) -> None:
    wanted = settings("train.epochs=1")
    dataset = data.load(wanted.data)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        loop.fit(wanted, dataset, seed, tmp_path / name)
    paths = [tmp_path / name / "last.safetensors" for name in "abc"]
    assert same_weights(paths[0], paths[1])
    assert not same_weights(paths[0], paths[2])


def test_training_stops_early_when_nothing_gets_better(tmp_path: Path) -> None:
    wanted = settings("train.epochs=40", "train.patience=2", "train.lr=1e-9")
    dataset = data.load(wanted.data)
    dataset.validation.update({k: v[:1] for k, v in dataset.validation.items()})
    seen: list[int] = []
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:  # an epoch as good as the best would count as progress
        patch.setattr(loop, "at_least_as_good", lambda new, old: new > old)
        state = loop.fit(wanted, dataset, 0, tmp_path, lambda state: seen.append(state.epoch))
    assert state.epoch == state.best_epoch + 2 < 40
    assert seen == list(range(1, state.epoch + 1))


def test_a_loss_that_is_not_finite_says_what_to_change(tmp_path: Path) -> None:
    wanted = settings("train.epochs=1")
    dataset = data.load(wanted.data)
    first = next(iter(dataset.train.values()))
    first[:] = math.nan
    with pytest.raises(WorkError, match=r"seed 0: the loss is nan in epoch 1; lower train\.lr"):
        loop.fit(wanted, dataset, 0, tmp_path)


def test_every_epoch_visits_every_example_once_in_its_own_order() -> None:
    orders = [loop.epoch_order(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(100))
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nearly_nothing() -> None:
    rates = [loop.one_cycle(step, 1000, 0.4, 0.25) for step in range(1000)]
    assert max(rates) == rates[250] == pytest.approx(0.4)
    assert rates[0] == pytest.approx(0.4 / 25)
    assert rates[-1] < 0.4 / 1000
    assert rates[:251] == sorted(rates[:251])
    assert rates[250:] == sorted(rates[250:], reverse=True)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    wanted = settings("train.epochs=1")
    dataset = data.load(wanted.data)
    loop.fit(wanted, dataset, 0, tmp_path)
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last\.safetensors: is not a readable checkpoint"):
        loop.fit(wanted, dataset, 0, tmp_path)


def test_checkpoints_hold_no_pickled_objects(trained: Path) -> None:
    """safetensors' own reader knows tensors and text, nothing that could run."""
    paths = list(trained.glob("runs/*/seed-*/*.safetensors"))
    assert len(paths) == 4
    for path in paths:
        assert load_file(path)


def test_a_resumed_run_takes_no_new_settings(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--config", str(CONFIG), "train.lr=1", "--resume"]) == 2
    assert "keeps its settings" in capsys.readouterr().err


def test_a_run_refuses_data_that_has_changed(work: Path) -> None:
    run = runs.open_run(settings())
    run.about["data"]["fingerprint"] = "0" * 64
    with pytest.raises(UserError, match="the data has changed since this run was started"):
        run.dataset()


def test_an_unknown_run_is_named(work: Path) -> None:
    with pytest.raises(UserError, match="nosuch: no such run"):
        runs.open_run(settings(), "nosuch")
    with pytest.raises(UserError, match="no run there yet"):
        runs.open_run(settings("paths.runs=empty"))


def test_an_unfinished_run_is_not_measured(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next(work.glob("runs/*/seed-1/best.safetensors")).unlink()
    assert cli.main(["evaluate", "--config", str(CONFIG)]) == 2
    assert "go on with: train --resume" in capsys.readouterr().err


def test_intervals_cover_the_truth_about_as_often_as_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluate, "RESAMPLES", 200)
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        low, high = evaluate.interval((draw.random((1, 200)) < 0.8).astype(float))
        covered += low <= 0.8 <= high
    assert 89 <= covered <= 99


def test_a_win_is_claimed_only_when_the_interval_excludes_zero() -> None:
    assert evaluate.verdict({"ahead_interval": (0.01, 0.2)}) == "ahead"
    assert evaluate.verdict({"ahead_interval": (-0.2, -0.01)}) == "behind"
    assert evaluate.verdict({"ahead_interval": (-0.01, 0.2)}) == "not distinguishable"
