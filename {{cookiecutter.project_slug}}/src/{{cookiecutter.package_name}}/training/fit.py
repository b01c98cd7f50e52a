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
from torch.amp.grad_scaler import GradScaler
from tqdm import tqdm

from ..arrays import Arrays, row_count, select_rows
from ..config import UserError, WorkError
from ..interfaces import Metrics, Prepares, ScoreMetric, Stage
from ..task import contract, model, objective
from ..task.data import Dataset
from ..task.settings import Settings
from . import checkpoint, optimizers, processes
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
    Interrupted after saving when `stop` returns true, WorkError at a step whose loss or gradient is
    not finite. With several processes each has a share of every step's examples.
    """
    # 1. Network, optimiser and data, as at the first step; alike in all processes.
    train, device = stage.train, pick_device(stage.train.device)
    context = optimizers.autocast(train, device)
    last = folder / "last.safetensors"
    resumed = processes.on_first(last.exists)
    seed_everything(seed)
    network = stage.build().to(device)
    if start is not None:
        checkpoint.load_shared_weights(start, network)
    processes.copy_first(network.state_dict().values())
    # Convolutions are faster where the channels of a pixel are neighbours in memory.
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = optimizers.WeightAverage(network, train.ema) if train.ema else None
    kept = average.network if average else network  # what is measured, and saved as the best
    if train.compile:
        optimizers.compile_network(network, device)
    optimizer = optimizers.build_optimizer(train, network)
    scaler = GradScaler(device.type, enabled=train.precision == "float16")
    data = BatchSource(stage.data, device)
    steps = math.ceil(data.count / train.batch_size)
    if processes.rank():  # other random numbers than in the first process
        seed_everything(mixed_seed(seed, processes.rank()))

    # 2. The state of the last checkpoint, if there is one.
    state, loss_sum = TrainingState(), torch.zeros((), device=device)
    parts = checkpoint.Parts(network, average and kept, optimizer, scaler, loss_sum)
    if resumed:
        state = TrainingState(**checkpoint.restore(last, parts))
    total, done = train.epochs * steps, state.epoch * steps + state.step
    finite = FiniteCheck(stage, seed, device)
    bar = tqdm(
        desc=f"{stage.name}, seed {seed}",
        total=total,
        initial=done,
        unit="step",
        leave=False,
        disable=True if processes.rank() else None,
    )  # None: on a terminal alone
    with bar:
        while state.epoch < train.epochs and state.epoch - state.best_epoch < train.patience:
            # 3. The steps of an epoch; after a resume, those that are left of it.
            started = time.perf_counter()
            network.train()
            order = epoch_order(data.count, seed, state.epoch).split(train.batch_size)[state.step :]
            shares = [own_parts(rows, train.accumulate) for rows in order]
            batches = data.batches([rows for share in shares for rows in share])
            for rows, share in zip(order, shares, strict=True):
                if processes.any_process(stop()):
                    finite.check(state)
                    state.seconds += time.perf_counter() - started
                    checkpoint.save(last, parts, vars(state))
                    raise Interrupted
                done = state.epoch * steps + state.step
                for group in optimizer.param_groups:
                    group["lr"] = optimizers.learning_rate(train, done, total)
                optimizer.zero_grad()
                losses = [loss_sum * 0] if not share else []
                for part in share:
                    with context():
                        loss = stage.loss(network, next(batches))
                    weight = len(part) / len(rows)  # 1 for a step that is not divided
                    scaler.scale(loss).backward(torch.full_like(loss, weight))
                    losses.append(loss.detach() * weight)
                step_loss = processes.sum_gradients(network.parameters(), losses)
                scaler.unscale_(optimizer)
                norm = nn.utils.clip_grad_norm_(network.parameters(), train.clip_norm)
                state.step += 1
                # The scaler skips a step that overflows, so there only the loss has to be finite.
                finite.add(state, step_loss, step_loss if scaler.is_enabled() else norm)
                scaler.step(optimizer)
                scaler.update()
                if average:
                    average.update(done + 1)
                loss_sum += step_loss
                bar.update()

            # 4. The validation metrics; keep the weights if they are the best so far.
            finite.check(state)
            mean_loss = loss_sum.item() / steps
            processes.copy_first(kept.buffers())  # each process has its own running statistics
            metrics = processes.of_first(stage.measure(kept))
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
                if processes.rank() == 0:
                    checkpoint.save_weights(folder / "best.safetensors", kept)
            checkpoint.save(last, parts, vars(state))
            on_epoch(state)
    return state


def own_parts(rows: Tensor, accumulate: int) -> list[Tensor]:
    """Return this process's share of a step's examples, in at most `accumulate` parts."""
    if accumulate == processes.count() == 1:
        return [rows]
    own = rows[processes.rank() :: processes.count()]
    return list(own.chunk(accumulate)) if len(own) else []


class FiniteCheck:
    """Stop at the first step whose loss or gradient is not finite, before anything is saved.

    On a GPU to look at every step would make the program wait for it, so many are checked at once.
    """

    def __init__(self, stage: Stage, seed: int, device: torch.device) -> None:
        self.stage, self.seed = stage, seed
        self.every = 1 if device.type == "cpu" else 50
        self.values: list[Tensor] = []  # by turns loss and gradient norm, since the last check

    def add(self, state: TrainingState, loss: Tensor, norm: Tensor) -> None:
        """Remember the newest step, and check if it is time. Raises WorkError."""
        self.values += [loss, norm]
        if len(self.values) >= 2 * self.every:
            self.check(state)

    def check(self, state: TrainingState) -> None:
        """Check the steps since the last check. Raises WorkError naming the first bad one."""
        few = len(self.values) <= 2
        values = [float(v) for v in self.values] if few else torch.stack(self.values).tolist()
        self.values.clear()
        first = state.step - len(values) // 2 + 1
        for number, (loss, norm) in enumerate(zip(values[::2], values[1::2], strict=True), first):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                train = self.stage.train
                is_loss = not math.isfinite(loss)
                what = f"loss is {loss}" if is_loss else f"gradient's norm is {norm}"
                raise WorkError(
                    f"{self.stage.name} with seed {self.seed}: the {what} in epoch "
                    f"{state.epoch + 1}, step {number}; look for extreme values in the data, or "
                    f"lower train.lr (now {train.lr}) or train.clip_norm (now {train.clip_norm})"
                )


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order (count,) in which an epoch visits the examples, by seed and epoch alone."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def mixed_seed(seed: int, rank: int) -> int:
    """Return the seed of a process's random numbers, by seed and rank alone."""
    return int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])


@torch.inference_mode()
def predict(network: nn.Module, split: Arrays, batch_size: int) -> Arrays:
    """Return the network's outputs by name, a row for every example of a split.

    Several processes share the rows; each gets all outputs.
    """
    network.eval()
    if (own := processes.own_rows(row_count(split))) is not None:
        split = select_rows(split, own)
    device = next(network.parameters()).device
    batches = split_batches(split, contract.INPUTS, 4 * batch_size)
    outputs = [network(*(tensor.to(device) for tensor in batch)) for batch in batches]
    if not isinstance(outputs[0], tuple):  # a network with one output may return it bare
        outputs = [(tensor,) for tensor in outputs]
    joined = {
        name: torch.cat(column).cpu().numpy()
        for name, column in zip(contract.OUTPUTS, zip(*outputs, strict=True), strict=True)
    }
    return joined if own is None else processes.join_rows(joined)


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
