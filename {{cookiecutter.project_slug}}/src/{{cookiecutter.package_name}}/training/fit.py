"""The training loop: plain PyTorch, top to bottom.

Everything that a step depends on is a function of the settings and of the state that a checkpoint
holds, so a run that was killed and resumed ends with the same weights, bit by bit, as one that
was not (same machine, same number of threads).
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..config import UserError, WorkError
from ..interfaces import Arrays, Metrics, Prepares, Stage
from ..task import contract, model, objective
from ..task.data import Dataset
from ..task.settings import Settings
from . import checkpoint


@dataclass
class TrainingState:
    """How far the training has come; stored in every checkpoint."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done of the epoch under way
    best: float | None = None  # the deciding metric on validation
    best_epoch: int = 0
    seconds: float = 0.0
    history: list[Metrics] = field(default_factory=list)


class Interrupted(Exception):
    """Somebody asked to stop; everything needed to go on is on disk."""


def training_stage(settings: Settings, dataset: Dataset) -> Stage:
    """The training that the run is about; a network may ask for another one before it."""

    def build() -> nn.Module:
        network = model.build(settings, dataset.contract)
        if isinstance(network, Prepares):
            network.prepare(dataset.train, dataset.validation)
        return network

    def measure(network: nn.Module) -> Metrics:
        outputs = predict(network, dataset.validation, settings.train.batch_size)
        return objective.metrics(outputs, dataset.validation, dataset.contract)

    return Stage(
        name="training",
        train=settings.train,
        data=dataset.train,
        build=build,
        loss=lambda network, batch: objective.loss(settings, network, batch),
        measure=measure,
        primary_metric=objective.PRIMARY_METRIC,
        higher_is_better=objective.HIGHER_IS_BETTER,
    )


def fit(
    stage: Stage,
    seed: int,
    folder: Path,
    on_epoch: Callable[[TrainingState], None] = lambda state: None,
    stop: Callable[[], bool] = lambda: False,
    start: Path | None = None,
) -> TrainingState:
    """Train one network; `folder` gets `best.safetensors` and `last.safetensors`.

    Goes on from `last.safetensors` if it is there, else begins with the weights of `start`. Raises
    Interrupted after saving when `stop` says so, WorkError when the loss is no longer finite.
    """
    train, device = stage.train, pick_device(stage.train.device)
    seed_everything(seed)
    network = stage.build().to(device)
    if start is not None:
        checkpoint.load_shared_weights(start, network)
    optimizer = torch.optim.AdamW(
        network.parameters(), train.lr, weight_decay=train.weight_decay, fused=True
    )
    data = {name: torch.from_numpy(array).to(device) for name, array in stage.data.items()}
    count = len(next(iter(data.values())))
    steps = math.ceil(count / train.batch_size)
    state, loss_sum = TrainingState(), torch.zeros((), device=device)
    last = folder / "last.safetensors"
    if last.exists():
        state = TrainingState(**checkpoint.restore(last, network, optimizer, loss_sum))
    bar = tqdm(
        total=train.epochs * steps,
        initial=state.epoch * steps + state.step,
        desc=f"{stage.name}, seed {seed}",
        unit="step",
        disable=None,
        leave=False,
    )
    with bar:
        while state.epoch < train.epochs and state.epoch - state.best_epoch < train.patience:
            started = time.perf_counter()
            network.train()
            for rows in epoch_order(count, seed, state.epoch).split(train.batch_size)[state.step :]:
                if stop():
                    state.seconds += time.perf_counter() - started
                    checkpoint.save(last, network, optimizer, loss_sum, vars(state))
                    raise Interrupted
                done = state.epoch * steps + state.step
                for group in optimizer.param_groups:
                    group["lr"] = one_cycle(done, train.epochs * steps, train.lr, train.warmup)
                rows = rows.to(device)
                loss = stage.loss(network, {k: v[rows] for k, v in data.items()})
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), train.clip_norm)
                optimizer.step()
                loss_sum += loss.detach()
                state.step += 1
                bar.update()

            mean_loss = loss_sum.item() / steps
            if not math.isfinite(mean_loss):
                raise WorkError(
                    f"{stage.name} with seed {seed}: the loss is {mean_loss} in epoch "
                    f"{state.epoch + 1}; lower train.lr (now {train.lr}) or train.clip_norm (now "
                    f"{train.clip_norm})"
                )
            found = stage.measure(network)
            value = found[stage.primary_metric]
            state.epoch, state.step = state.epoch + 1, 0
            state.seconds += time.perf_counter() - started
            state.history.append({"loss": mean_loss, **found})
            loss_sum.zero_()
            bar.set_postfix({stage.primary_metric: f"{value:.4f}"})
            # Of two equal epochs the later one is kept: it has seen the lower learning rate.
            sign = 1 if stage.higher_is_better else -1
            if state.best is None or sign * value >= sign * state.best:
                state.best, state.best_epoch = value, state.epoch
                checkpoint.save_weights(folder / "best.safetensors", network)
            checkpoint.save(last, network, optimizer, loss_sum, vars(state))
            on_epoch(state)
    return state


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch visits the examples: it depends on nothing but its arguments."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def one_cycle(step: int, total: int, peak: float, warmup: float) -> float:
    """Learning rate of a step: up to `peak` and down to nearly nothing, each half a cosine.

    Smith and Topin, Super-Convergence, https://arxiv.org/abs/1708.07120
    """
    rise = warmup * total
    if step < rise:
        low, progress = peak / 25, step / rise
    else:
        low, progress = peak / 10_000, (total - step) / (total - rise)
    return low + (peak - low) * (1 - math.cos(math.pi * progress)) / 2


@torch.inference_mode()
def predict(network: nn.Module, split: Arrays, batch_size: int) -> Arrays:
    """The network's outputs, by name, for every example of a split."""
    network.eval()
    device = next(network.parameters()).device
    inputs = [torch.from_numpy(split[name]) for name in contract.INPUTS]
    batches = zip(*(tensor.split(4 * batch_size) for tensor in inputs), strict=True)
    parts = [as_tuple(network(*(part.to(device) for part in batch))) for batch in batches]
    return {
        name: torch.cat(column).cpu().numpy()
        for name, column in zip(contract.OUTPUTS, zip(*parts, strict=True), strict=True)
    }


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A network with one output may return it bare."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def seed_everything(seed: int) -> None:
    """Seed every generator that a model or an objective may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # A few GPU operations have no deterministic version: those warn and go on.
    torch.use_deterministic_algorithms(True, warn_only=True)


def pick_device(wanted: str) -> torch.device:
    """The device to compute on; UserError when this machine lacks it."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":  # mps only by name: it lacks some operations, and exact resume
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there.get(wanted, True):
        raise UserError(f"train.device={wanted}: this machine has none; allowed here: auto, cpu")
    return torch.device(wanted)
