"""Look at the network before training: `doctor` prints and draws what is checked here.

Theory comes from the loss itself: `Laboratory.bounds` minimises it over outputs without a network,
so the checks hold for any task. All checks but the times depend on the seed alone.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import numpy as np

from ..arrays import Arrays, row_count, select_rows
from ..interfaces import Prepares
from ..task import objective
from ..task.data import Dataset
from ..task.settings import Settings
from . import checkpoint
from .fit import predict, training_stage
from .probes import Batch, Bounds, Laboratory, RangeTest, Rehearsal

OVERFIT_ROWS, OVERFIT_STEPS, OVERFIT_LR = 32, 250, 2e-3
LEARNED, STUCK = 0.9, 0.5  # shares of the way to the floor that one batch must be learned
REHEARSAL_STEPS = 60
RANGE_STEPS, RANGE_LOW, RANGE_HIGH = 80, 1e-6, 10.0
ACTIVATION_BATCHES = 3
DEAD_WARNING, DEAD_ERROR = 0.3, 0.9  # shares of the units of one layer
UPDATES = (1e-5, 1e-1)  # of a weight's size, per step; about 1e-3 is usual
VANISHED = 1e-6  # of the largest gradient among the layers
PROBE_ROWS, PERMUTATIONS = 500, 39  # beating all of them has p = 0.025
DATA_SHARE = 0.5  # of a step


class Check(NamedTuple):
    """What one check says, and what to do about it."""

    level: Literal["ok", "warning", "error"]
    name: str
    text: str
    advice: str = ""


@dataclass
class Diagnosis:
    """What the checks measured, for the figure."""

    lr: float
    checks: list[Check] = field(default_factory=list)
    initial: float = math.nan
    bounds: Bounds | None = None
    overfit: list[float] = field(default_factory=list)
    range_test: RangeTest = field(default_factory=RangeTest)
    rehearsal: Rehearsal | None = None
    useless: dict[str, tuple[float, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of an epoch, by part

    @property
    def failed(self) -> bool:
        return any(check.level == "error" for check in self.checks)


def diagnose(settings: Settings, dataset: Dataset, diagnosis: Diagnosis) -> Iterator[Check]:
    """Yield each check when it is done; `diagnosis` collects them and what they measured."""
    for check in _checks(settings, dataset, diagnosis):
        diagnosis.checks.append(check)
        yield check


def _checks(settings: Settings, dataset: Dataset, found: Diagnosis) -> Iterator[Check]:
    stage = training_stage(settings, dataset)
    laboratory = Laboratory(stage, settings.train.seeds[0])
    rows = laboratory.rows(1)[0][:OVERFIT_ROWS]
    batch = next(laboratory.source.batches([rows]))
    examples = {k: np.asarray(v[rows.numpy()]) for k, v in dataset.train.items()}

    network = laboratory.build()
    found.initial = laboratory.initial_loss(network, batch)
    if not math.isfinite(found.initial):
        text = f"{found.initial} before training; nothing else was checked"
        advice = "look for a division by zero or a logarithm of zero in the network and the loss"
        yield Check("error", "initial loss", text, advice)
        return
    found.bounds = bounds = laboratory.bounds(network, batch)
    direction = _loss_direction(bounds, examples, dataset)
    yield direction
    if direction.level != "error":  # else the bounds are none
        yield _initial_loss(found.initial, bounds, isinstance(network, Prepares))
        yield _overfit(laboratory, batch, found, bounds)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    yield _frozen(frozen, len(list(network.parameters())), settings)
    found.rehearsal = rehearsal = laboratory.rehearse(REHEARSAL_STEPS)
    yield from _gradients(rehearsal, settings)
    found.useless = laboratory.activations(rehearsal.network, ACTIVATION_BATCHES)
    yield _activations(found.useless)
    found.range_test = laboratory.range_test(RANGE_STEPS, RANGE_LOW, RANGE_HIGH)
    yield _learning_rate(found.range_test, settings.train.lr)
    if direction.level != "error" and all(map(math.isfinite, rehearsal.losses)):
        yield _targets(rehearsal, dataset, settings)
    yield _time(laboratory, found, rehearsal)


def _loss_direction(bounds: Bounds, examples: Arrays, dataset: Dataset) -> Check:
    name, metric = "loss", objective.PRIMARY_METRIC
    low, high = (
        objective.metrics(outputs, examples, dataset.contract)[metric]
        for outputs in (bounds.best_outputs, bounds.worst_outputs)
    )
    text = f"outputs with a loss of {bounds.floor:.3g} have {metric} {low:.3g} on a batch, those "
    text += f"with {bounds.worst:.3g} have {high:.3g}"
    if not (low > high if objective.HIGHER_IS_BETTER else low < high):
        advice = "check the sign of objective.loss and objective.HIGHER_IS_BETTER"
        return Check("error", name, f"a lower loss does not mean a better {metric}: {text}", advice)
    if bounds.worse - bounds.zero < 1.1 * (bounds.worst - bounds.zero):
        return Check(
            "error",
            name,
            f"it hardly grows with the error: {bounds.worst:.3g} for wrong outputs, "
            f"{bounds.worse:.3g} for outputs twice as wrong, so large errors get no gradient",
            "check whether softmax or sigmoid is applied twice; the loss wants plain logits",
        )
    return Check("ok", name, text)


def _initial_loss(initial: float, bounds: Bounds, prepared: bool) -> Check:
    name, ignorant = "initial loss", max(bounds.zero, bounds.constant)
    text = f"{initial:.3g} before training; without the inputs {bounds.constant:.3g} is possible, "
    text += f"all outputs zero have {bounds.zero:.3g}"
    margin = 0.25 * (ignorant - bounds.floor)
    if initial > ignorant + margin:
        advice = "start the last layer with smaller weights; the first epochs only undo these"
        return Check("warning", name, f"worse than knowing nothing: {text}", advice)
    if not prepared and initial < bounds.constant - margin:
        advice = "check whether the inputs hold the target; fine if the weights are pretrained"
        return Check("warning", name, f"better than an untrained network can be: {text}", advice)
    return Check("ok", name, text)


def _overfit(laboratory: Laboratory, batch: Batch, found: Diagnosis, bounds: Bounds) -> Check:
    way = found.initial - bounds.floor
    enough = found.initial - LEARNED * way
    losses = found.overfit = laboratory.overfit(batch, enough, OVERFIT_STEPS, OVERFIT_LR)
    lowest = min(losses)
    share = (losses[0] - lowest) / max(losses[0] - bounds.floor, 1e-12)
    text = f"the loss falls from {losses[0]:.3g} to {lowest:.3g} in {len(losses)} steps; its floor "
    text += f"is {bounds.floor:.3g}"
    if lowest <= enough:
        return Check("ok", "one batch", text)
    advice = "check that the inputs reach the output, that no layer is frozen, that softmax is not "
    advice += "applied twice; else the network is too small or needs another scale of inputs"
    text = f"cannot be learned by heart, only {share:.0%} of the way: {text}"
    return Check("error" if share < STUCK else "warning", "one batch", text, advice)


def _frozen(frozen: set[str], total: int, settings: Settings) -> Check:
    if not frozen:
        return Check("ok", "frozen layers", f"none: all {total} weights of the network are trained")
    text = f"{len(frozen)} of {total} weights have requires_grad=False: {_listed(frozen)}"
    if getattr(settings.model, "frozen", 0):
        return Check("ok", "frozen layers", f"{text}, as model.frozen asks")
    return Check("error", "frozen layers", text, "unfreeze them, or leave them out of the network")


def _gradients(rehearsal: Rehearsal, settings: Settings) -> Iterator[Check]:
    losses, name = rehearsal.losses, "gradients"
    gradients = {key: median(values) for key, values in rehearsal.gradients.items()}
    if not all(map(math.isfinite, [*losses, *gradients.values()])):
        advice = "lower train.lr; look for logarithms and divisions in the network and the loss"
        yield Check("error", name, "the loss or a gradient is not finite", advice)
        return
    if silent := {k for k, values in rehearsal.gradients.items() if not any(values)}:
        text = f"no gradient reaches {len(silent)} of {len(gradients)} weights: {_listed(silent)}"
        advice = "check that forward uses them, and look for detach, no_grad and dead activations"
        yield Check("error", name, text, advice)
    else:
        matrices = {k: gradients[k] for k in rehearsal.matrices()} or gradients
        smallest, largest = min(matrices, key=matrices.__getitem__), max(matrices.values())
        text = f"reach all {len(gradients)} weights; RMS from {matrices[smallest]:.1e} "
        text += f"({smallest}) to {largest:.1e}"
        if matrices[smallest] < VANISHED * largest:
            advice = "add normalisation or skip connections, or start with other weights"
            yield Check("warning", name, f"vanish on the way: {text}", advice)
        else:
            yield Check("ok", name, text)
    yield _updates(rehearsal, settings.train.lr)


def _updates(rehearsal: Rehearsal, lr: float) -> Check:
    """Judge the second half of the rehearsal, when weights that start at zero have grown."""
    half = len(rehearsal.losses) // 2
    updates = {k: median(rehearsal.updates[k][half:]) for k in rehearsal.matrices()}
    if not updates:
        return Check("ok", "updates", "no weight matrix is trained")
    low, high = min(updates, key=updates.__getitem__), max(updates, key=updates.__getitem__)
    text = f"per step, weights change by {updates[low]:.1e} ({low}) to {updates[high]:.1e} "
    text += f"({high}) of their size; about 1e-3 is usual"
    if updates[high] > UPDATES[1]:
        return Check("warning", "updates", f"large: {text}", f"lower train.lr (now {lr:g})")
    if updates[low] < UPDATES[0]:
        return Check("warning", "updates", f"small: {text}", f"raise train.lr (now {lr:g})")
    return Check("ok", "updates", text)


def _activations(useless: dict[str, tuple[float, int]]) -> Check:
    name = "dead units"
    if not useless:
        return Check("ok", name, "no ReLU, GELU, tanh or the like was called in Python")
    layer = max(useless, key=lambda key: useless[key][0])
    share, units = useless[layer]
    text = f"at most {share:.0%} of a layer's units are always 0 or saturated"
    if share < DEAD_WARNING:
        return Check("ok", name, f"{text}, in {len(useless)} activations")
    text = f"{share:.0%} of the {units} units of {layer} are always 0 or saturated, whatever the "
    text += f"input, after {REHEARSAL_STEPS} steps"
    advice = "lower train.lr; check the weights and biases that this layer starts with"
    return Check("error" if share >= DEAD_ERROR else "warning", name, text, advice)


def _learning_rate(test: RangeTest, lr: float) -> Check:
    steepest, limit = test.steepest(), test.limit()
    text = f"the loss falls fastest at {steepest:.2g} and rises again beyond {limit:.2g}; train.lr "
    text += f"is {lr:g}"
    if lr > limit:
        advice = f"set train.lr to about {steepest:.2g}"
        return Check("error", "learning rate", f"too high: {text}", advice)
    if lr < steepest / 100:
        advice = f"try train.lr={steepest / 3:.2g}"
        return Check("warning", "learning rate", f"low: {text}", advice)
    return Check("ok", "learning rate", text)


def _targets(rehearsal: Rehearsal, dataset: Dataset, settings: Settings) -> Check:
    """Compare the rehearsal's network on validation with the same outputs given to other rows.

    A permutation test: Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010.
    """
    generator = np.random.default_rng(settings.train.seeds[0])
    rows = generator.permutation(row_count(dataset.validation))[:PROBE_ROWS]
    split = {k: np.asarray(v) for k, v in select_rows(dataset.validation, np.sort(rows)).items()}
    outputs = predict(rehearsal.network, split, settings.train.batch_size)
    metric, sign = objective.PRIMARY_METRIC, 1 if objective.HIGHER_IS_BETTER else -1

    def measure(order: np.ndarray) -> float:
        moved = {name: values[order] for name, values in outputs.items()}
        return objective.metrics(moved, split, dataset.contract)[metric]

    straight = np.arange(len(rows))
    real = measure(straight)
    chance = [measure(generator.permutation(straight)) for _ in range(PERMUTATIONS)]
    text = f"after {REHEARSAL_STEPS} steps {metric} is {real:.3g} on {len(rows)} validation rows, "
    text += f"{median(chance):.3g} with the targets shuffled"
    if sign * real > max(sign * value for value in chance):
        return Check("ok", "targets", text)
    advice = "check that targets belong to their inputs (the same order in both files, the join); "
    advice += "fix what else is wrong first"
    return Check("error", "targets", f"do not depend on the inputs: {text}", advice)


def _time(laboratory: Laboratory, found: Diagnosis, rehearsal: Rehearsal) -> Check:
    stage = laboratory.stage
    started = time.perf_counter()
    stage.measure(rehearsal.network)
    measured = time.perf_counter()
    with TemporaryDirectory() as folder:
        checkpoint.save_weights(Path(folder) / "weights.safetensors", rehearsal.network)
    saved = time.perf_counter() - measured
    steps = math.ceil(laboratory.source.count / stage.train.batch_size)
    step = {part: median(values) for part, values in rehearsal.seconds.items()}
    found.seconds = {part: value * steps for part, value in step.items()}
    # A checkpoint holds the weights and two moments of each; the best weights are saved too.
    found.seconds |= {"validation": measured - started, "checkpoint": 4 * saved}
    epoch = sum(found.seconds.values())
    parts = ", ".join(f"{part} {value / epoch:.0%}" for part, value in found.seconds.items())
    text = f"an epoch takes about {epoch:.2g} s, {stage.train.epochs} of them "
    text += f"{epoch * stage.train.epochs:.0f} s: {parts}"
    if step["data"] > DATA_SHARE * sum(step.values()):
        advice = "make rows once and keep them (larger data.memory_mb, a cache), or smaller rows"
        return Check("warning", "time", f"most of a step is spent waiting for data: {text}", advice)
    return Check("ok", "time", text)


def _listed(names: set[str], most: int = 4) -> str:
    chosen = sorted(names)
    more = f" and {len(chosen) - most} more" if len(chosen) > most else ""
    return ", ".join(chosen[:most]) + more
