"""Each setting of the training loop does what its help text says; all are off by default."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from {{ cookiecutter.package_name }}.config import UserError, WorkError, load_settings
from {{ cookiecutter.package_name }}.interfaces import Stage
from {{ cookiecutter.package_name }}.settings import TrainSettings
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import batches, checkpoint, fit, optimizers

from .conftest import CONFIG
from .quick import QUICK

CPU = torch.device("cpu")


def train(**changes: object) -> TrainSettings:
    values = {"epochs": 2, "batch_size": 8, "device": "cpu", **changes}
    return TrainSettings.model_validate(values)


class Small(torch.nn.Module):
    """A network with one parameter of each kind that `no_decay` knows."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = torch.nn.Embedding(5, 4), torch.nn.LayerNorm(4)
        self.head = torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.table(x)))[:, 0]


def small_stage(train: TrainSettings) -> Stage:
    x = np.arange(27) % 5
    return Stage(
        name="training",
        train=train,
        data={"x": x, "y": np.sin(x).astype(np.float32)},
        build=Small,
        loss=lambda network, batch: (network(batch["x"]) - batch["y"]).square().mean(),
        measure=lambda network: {"size": network(torch.arange(5)).square().sum().item()},
        primary_metric="size",
        higher_is_better=False,
    )


def stop_after(steps: int) -> Callable[[], bool]:
    left = iter(range(steps))
    return lambda: next(left, None) is None


def equal(one: Path, other: Path) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", ["adamw", "nadam", "sgd"])
def test_run_with_all_settings_on_resumes_within_an_epoch_to_bit_identical_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, optimizer: str
) -> None:
    """float16 is refused on CPUs for its speed; here it shows that the scaler's state is kept."""
    cast = torch.bfloat16 if precision == "bfloat16" else torch.float16
    monkeypatch.setattr(
        optimizers, "autocast", lambda train, device: lambda: torch.autocast("cpu", cast)
    )
    names = ["train.accumulate=2", "train.ema=0.9", "train.no_decay=true", "train.schedule=cosine"]
    names += [f"train.precision={precision}", f"train.optimizer={optimizer}", "train.epochs=2"]
    settings = load_settings(Settings, CONFIG, [*QUICK, "train.batch_size=16", *names], {})
    ordinary = fit.training_stage(settings, data.load(settings.data))
    rows = {name: array[:60] for name, array in ordinary.data.items()}
    ordinary = replace(ordinary, data=rows)
    fit.fit(ordinary, 0, tmp_path / "whole")
    with pytest.raises(fit.Interrupted):
        fit.fit(ordinary, 0, tmp_path / "parts", stop=stop_after(5))
    fit.fit(ordinary, 0, tmp_path / "parts")
    for name in ("last.safetensors", "best.safetensors"):
        assert equal(tmp_path / "whole" / name, tmp_path / "parts" / name)


@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_step_in_parts_equals_the_step_with_all_its_examples(
    tmp_path: Path, accumulate: int
) -> None:
    """27 examples by 8: the last step has 3, so its parts differ in size."""
    fit.fit(small_stage(train()), 0, tmp_path / "once")
    fit.fit(small_stage(train(accumulate=accumulate)), 0, tmp_path / "parts")
    once, parts = (load_file(tmp_path / name / "best.safetensors") for name in ("once", "parts"))
    for name, tensor in once.items():
        torch.testing.assert_close(tensor, parts[name], rtol=0, atol=1e-5)


def test_average_follows_its_formula_and_is_what_is_measured_and_kept(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    ordinary = small_stage(train(ema=0.5, epochs=1))

    def loss(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(next(network.parameters()).detach().clone())  # before each step
        return ordinary.loss(network, batch)

    measured: list[torch.Tensor] = []

    def measure(network: torch.nn.Module) -> dict[str, float]:
        measured.append(next(network.parameters()).detach().clone())
        return {"size": 0.0}

    fit.fit(replace(ordinary, loss=loss, measure=measure), 0, tmp_path)
    seen.append(load_file(tmp_path / "last.safetensors")["network.table.weight"])
    average = seen[0]
    for step, weights in enumerate(seen[1:], 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
    torch.testing.assert_close(measured[0], average)
    best = load_file(tmp_path / "best.safetensors")["table.weight"]
    assert torch.equal(best, measured[0])
    assert not torch.equal(best, seen[-1])


def test_biases_norms_and_embeddings_are_left_out_of_weight_decay() -> None:
    optimizer = optimizers.build_optimizer(train(no_decay=True), network := Small())
    decayed, others = optimizer.param_groups
    assert [id(p) for p in decayed["params"]] == [id(network.head.weight)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0)
    assert len(others["params"]) == 4
    (every,) = optimizers.build_optimizer(train(), network).param_groups
    assert len(every["params"]) == 5


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("one-cycle", {0: 0.04, 10: 0.52, 20: 1.0, 60: 0.50005, 100: 0.0001}),
        ("cosine", {0: 0.05, 9: 0.5, 20: 1.0, 60: 0.5, 100: 0.0}),
        ("constant", {0: 0.05, 9: 0.5, 19: 1.0, 20: 1.0, 99: 1.0}),
    ],
)
def test_schedules_have_their_known_values(schedule: str, rates: dict[int, float]) -> None:
    chosen = train(schedule=schedule, lr=1.0, warmup=0.2)
    for step, rate in rates.items():
        assert optimizers.learning_rate(chosen, step, 100) == pytest.approx(rate)
    without = train(schedule=schedule, lr=1.0, warmup=0)
    assert optimizers.learning_rate(without, 0, 100) == 1.0


def test_float16_is_refused_on_a_cpu() -> None:
    with pytest.raises(UserError, match=r"train\.precision=float16: a CPU is slower"):
        fit.fit(small_stage(train(precision="float16")), 0, Path("unused"))


def test_missing_compiler_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(function: object) -> object:
        raise RuntimeError("No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(WorkError, match=r"it needs a C\+\+ compiler.*: No working .*compile=false"):
        fit.fit(small_stage(train(compile=True)), 0, tmp_path)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_value_that_is_not_finite_stops_at_its_step_and_is_never_saved(
    tmp_path: Path, what: str
) -> None:
    """The second epoch's third step is broken, and Ctrl-C arrives at the same moment."""
    ordinary, steps = small_stage(train(epochs=3)), iter(range(100))
    networks: list[torch.nn.Module] = []

    def loss(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        networks.append(network)
        value = ordinary.loss(network, batch)
        if next(steps) != 6:
            return value
        # The root of zero is finite, its derivative is not.
        return value * math.inf if what == "loss" else value + (value * 0).sqrt()

    saved: list[bytes] = []
    last = tmp_path / "last.safetensors"
    words = "loss is inf" if what == "loss" else "gradient's norm is nan"
    with pytest.raises(WorkError, match=rf"the {words} in epoch 2, step 3; .*train\.lr"):
        fit.fit(
            replace(ordinary, loss=loss),
            0,
            tmp_path,
            lambda state: saved.append(last.read_bytes()),
            stop=lambda: next(iter(networks[6:]), None) is not None,
        )
    assert saved == [last.read_bytes()], "the checkpoint of the first epoch"
    assert all(parameter.isfinite().all() for parameter in networks[0].parameters())


def test_full_disk_is_one_line_and_leaves_the_checkpoint_before_whole(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    fit.fit(small_stage(train(epochs=1)), 0, tmp_path)
    last = tmp_path / "last.safetensors"
    before, limits = last.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file grows beyond it
    try:
        with pytest.raises((WorkError, OSError)) as caught:
            fit.fit(small_stage(train(epochs=2)), 0, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert last.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_examples_share_memory_with_the_data_on_a_cpu() -> None:
    array = np.zeros((4, 2), np.float32)
    source = batches.BatchSource({"x": array}, CPU)
    assert source.tensors["x"].data_ptr() == array.ctypes.data


def test_examples_beyond_the_device_are_sent_batch_by_batch_with_equal_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit.fit(small_stage(train()), 0, tmp_path / "fits")
    monkeypatch.setattr(batches, "room", lambda device: 100)
    assert not batches.BatchSource(small_stage(train()).data, CPU).tensors
    fit.fit(small_stage(train()), 0, tmp_path / "sent")
    assert equal(*(tmp_path / name / "best.safetensors" for name in ("fits", "sent")))


def test_checkpoint_of_the_code_before_these_settings_loads(tmp_path: Path) -> None:
    """It has neither a scaler nor other processes."""
    ordinary, last = small_stage(train()), tmp_path / "last.safetensors"
    with pytest.raises(fit.Interrupted):
        fit.fit(ordinary, 0, tmp_path, stop=stop_after(3))
    tensors, about = checkpoint._read(last)
    kept = {key: about[key] for key in ("progress", "numpy", "python")}
    checkpoint._write(last, tensors, kept)
    fit.fit(ordinary, 0, tmp_path)
    fit.fit(ordinary, 0, tmp_path / "whole")
    assert equal(last, tmp_path / "whole" / "last.safetensors")
