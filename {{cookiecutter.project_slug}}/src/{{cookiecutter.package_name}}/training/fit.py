"""The training loop: plain PyTorch, top to bottom.

Every step depends on the settings and on what a checkpoint holds, on nothing else. So a killed and
resumed run ends at bit-identical weights (same machine, same number of threads).
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

from ..arrays import Arrays
from ..config import UserError, WorkError
from ..interfaces import Metrics, Prepares, ScoreMetric, Stage
from ..task import contract, model, objective
from ..task.data import Dataset
from ..task.settings import Settings
from . import checkpoint
from .batches import BatchSource, split_batches


@dataclass
class TrainingState:
    """The progress of one training, in every checkpoint and in `history.json`."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done in the current epoch
    best: float | None = None  # of the metric that compares epochs, in the chosen epoch
    best_epoch: int = 0  # the chosen one, counted from 1
    seconds: float = 0.0
    history: list[Metrics] = field(default_factory=list)  # loss and metrics of each epoch


class Interrupted(Exception):
    """The training was stopped and has saved its checkpoint."""


def training_stage(settings: Settings, dataset: Dataset) -> Stage:
    """Describe the main training of a run."""

    def build() -> nn.Module:
        network = model.build(settings, dataset.contract)
        if isinstance(network, Prepares):
            network.prepare(dataset.train, dataset.validation)
        return network

    def measure(network: nn.Module) -> Metrics:
        outputs = predict(network, dataset.validation, settings.train.batch_size)
        return objective.metrics(outputs, dataset.validation, dataset.contract)

    metric = epoch_metric(settings)
    return Stage(
        name="training",
        train=settings.train,
        data=dataset.train,
        build=build,
        loss=lambda network, batch: objective.loss(settings, network, batch),
        measure=measure,
        primary_metric=metric.name,
        higher_is_better=metric.higher_is_better,
    )


def epoch_metric(settings: Settings) -> ScoreMetric:
    """Return the metric that compares the epochs, and the seeds, of the main training."""
    if settings.train.choose_epoch == "proper":
        return objective.PROPER_SCORE
    return ScoreMetric(objective.PRIMARY_METRIC, objective.HIGHER_IS_BETTER)


def fit(
    stage: Stage,
    seed: int,
    folder: Path,
    on_epoch: Callable[[TrainingState], None] = lambda state: None,
    stop: Callable[[], bool] = lambda: False,
    start: Path | None = None,
) -> TrainingState:
    """Train one network; `folder` gets `best.safetensors` and `last.safetensors`.

    Resumes from `last.safetensors` if it exists, else begins with the weights of `start`. Raises
    Interrupted after saving when `stop` returns true, WorkError when the loss is not finite.
    """
    # 1. Network, optimiser and data, as at the first step.
    train, device = stage.train, pick_device(stage.train.device)
    seed_everything(seed)
    network = stage.build().to(device)
    if start is not None:
        checkpoint.load_shared_weights(start, network)
    optimizer = torch.optim.AdamW(
        network.parameters(), train.lr, weight_decay=train.weight_decay, fused=True
    )
    data = BatchSource(stage.data, device)
    steps = math.ceil(data.count / train.batch_size)

    # 2. The state of the last checkpoint, if there is one.
    state, loss_sum = TrainingState(), torch.zeros((), device=device)
    last = folder / "last.safetensors"
    if last.exists():
        state = TrainingState(**checkpoint.restore(last, network, optimizer, loss_sum))
    total, done = train.epochs * steps, state.epoch * steps + state.step
    title = f"{stage.name}, seed {seed}"
    with tqdm(desc=title, total=total, initial=done, unit="step", leave=False, disable=None) as bar:
        while state.epoch < train.epochs and state.epoch - state.best_epoch < train.patience:
            # 3. The steps of an epoch; after a resume, those that are left of it.
            started = time.perf_counter()
            network.train()
            order = epoch_order(data.count, seed, state.epoch).split(train.batch_size)
            for batch in data.batches(order[state.step :]):
                if stop():
                    state.seconds += time.perf_counter() - started
                    checkpoint.save(last, network, optimizer, loss_sum, vars(state))
                    raise Interrupted
                done = state.epoch * steps + state.step
                for group in optimizer.param_groups:
                    group["lr"] = one_cycle(done, total, train.lr, train.warmup)
                loss = stage.loss(network, batch)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), train.clip_norm)
                optimizer.step()
                loss_sum += loss.detach()
                state.step += 1
                bar.update()

            # 4. The validation metrics; keep the weights if they are the best so far.
            mean_loss = loss_sum.item() / steps
            if not math.isfinite(mean_loss):
                raise WorkError(
                    f"{stage.name} with seed {seed}: the loss is {mean_loss} in epoch "
                    f"{state.epoch + 1}; lower train.lr (now {train.lr}) or train.clip_norm (now "
                    f"{train.clip_norm})"
                )
            metrics = stage.measure(network)
            value = metrics[stage.primary_metric]
            state.epoch, state.step = state.epoch + 1, 0
            state.seconds += time.perf_counter() - started
            state.history.append({"loss": mean_loss, **metrics})
            loss_sum.zero_()
            bar.set_postfix({stage.primary_metric: f"{value:.4f}"})
            # On a tie keep the later epoch: it has seen the lower learning rate.
            sign = 1 if stage.higher_is_better else -1
            is_best = state.best is None or sign * value >= sign * state.best
            if is_best or train.choose_epoch == "last":
                state.best, state.best_epoch = value, state.epoch
                checkpoint.save_weights(folder / "best.safetensors", network)
            checkpoint.save(last, network, optimizer, loss_sum, vars(state))
            on_epoch(state)
    return state


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order (count,) in which an epoch visits the examples, by seed and epoch alone."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def one_cycle(step: int, total: int, peak: float, warmup: float) -> float:
    """Return the learning rate of a step: half a cosine from peak / 25 up to `peak` for the share
    `warmup` of all steps, then another down to peak / 10,000.

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
    """Return the network's outputs by name, a row for every example of a split."""
    network.eval()
    device = next(network.parameters()).device
    batches = split_batches(split, contract.INPUTS, 4 * batch_size)
    outputs = [network(*(tensor.to(device) for tensor in batch)) for batch in batches]
    if not isinstance(outputs[0], tuple):  # a network with one output may return it bare
        outputs = [(tensor,) for tensor in outputs]
    return {
        name: torch.cat(column).cpu().numpy()
        for name, column in zip(contract.OUTPUTS, zip(*outputs, strict=True), strict=True)
    }


def seed_everything(seed: int) -> None:
    """Seed every generator that a model or an objective may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # A few GPU operations have no deterministic version: warn instead of failing.
    torch.use_deterministic_algorithms(True, warn_only=True)


def pick_device(name: str) -> torch.device:
    """Return the device of `train.device`. Raises UserError when this machine lacks it."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":  # mps only on request: it lacks some operations, and exact resume
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available.get(name, True):
        allowed = ", ".join(["auto", "cpu", *(key for key, there in available.items() if there)])
        raise UserError(f"train.device={name}: not available on this machine; use {allowed}")
    return torch.device(name)
