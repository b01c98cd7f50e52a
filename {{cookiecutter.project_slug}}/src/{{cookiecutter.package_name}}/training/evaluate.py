"""Evaluate the trained networks on the test split, against the baselines."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Arrays
from ..config import UserError
from ..files import write_atomically, write_json
from ..interfaces import Calibrates, Diagnoses, Metrics
from ..progress import ProgressLines
from ..task import baseline, model, objective
from ..task.data import Dataset
from . import checkpoint, costs
from .documents import BaselineResult, Evaluation, Interval, NetworkResult
from .fit import pick_device, predict
from .runs import Run

RESAMPLES = 10_000


def load_network(run: Run, dataset: Dataset, seed: int) -> Any:
    """Load the network of a seed's best epoch, calibrated on validation if it can be."""
    path = run.seed_folder(seed) / "best.safetensors"
    if not path.exists():
        command = f"train --resume {run.name}"
        raise UserError(f"{path}: missing, the run is not finished; go on with: {command}")
    network = model.build(run.settings, dataset.contract)
    checkpoint.load_weights(path, network)
    network.to(pick_device(run.settings.train.device))
    if isinstance(network, Calibrates):
        outputs = predict(network, dataset.validation, run.settings.train.batch_size)
        network.calibrate(outputs, dataset.validation)
    return network


def evaluate(run: Run, dataset: Dataset, echo: Callable[[str], None] = print) -> Evaluation:
    """Measure every seed and every baseline on the test split and write `evaluation.json`."""
    started = time.perf_counter()
    test, contract, seeds = dataset.test, dataset.contract, run.settings.train.seeds
    sign = 1 if objective.HIGHER_IS_BETTER else -1

    # 1. The network of every seed. The one to deploy is the best on *validation*.
    outputs: dict[int, Arrays] = {}
    for seed in seeds:
        network = load_network(run, dataset, seed)
        outputs[seed] = predict(network, test, run.settings.train.batch_size)
    by_seed = {seed: objective.metrics(outputs[seed], test, contract) for seed in seeds}
    scores = np.stack([objective.scores(outputs[seed], test) for seed in seeds])
    best = {seed: run.history(seed).best or 0.0 for seed in seeds}  # None before the first epoch
    chosen = max(seeds, key=lambda seed: sign * best[seed])

    # 2. Every baseline, and by how much the networks are ahead of it.
    baselines: dict[str, BaselineResult] = {}
    echo(f"fitting baselines: {', '.join(baseline.names())}")
    report = ProgressLines(echo)
    for name, prediction in baseline.fit_and_predict(dataset):
        report(f"fitted: {name}")
        baseline_scores = objective.scores(prediction, test)[None]
        baselines[name] = BaselineResult(
            metrics=objective.metrics(prediction, test, contract),
            interval=bootstrap_interval(baseline_scores),
            ahead=float(sign * (scores.mean() - baseline_scores.mean())),
            ahead_interval=bootstrap_interval(sign * (scores - baseline_scores)),
        )

    # 3. The task's own tables about the chosen network.
    network = load_network(run, dataset, chosen)
    sentence = model.describe(network)
    details = objective.details(outputs[chosen], test, contract)
    if isinstance(network, Diagnoses):
        details |= network.diagnose(dataset)

    weights = run.seed_folder(chosen) / "best.safetensors"
    measured = costs.measure(network, weights, test, run.settings.train.batch_size)
    is_behind = any(result.ahead < 0 for result in baselines.values())

    # 4. The files; `evaluation.json` comes last, for it marks the evaluation as complete.
    evaluation = Evaluation(
        run=run.name,
        metric=objective.PRIMARY_METRIC,
        higher_is_better=objective.HIGHER_IS_BETTER,
        model=sentence,
        rows=run.info.data.rows,
        network=NetworkResult(
            seeds=by_seed,
            mean=_over_seeds(by_seed, np.mean),
            sd=_over_seeds(by_seed, partial(np.std, ddof=1)) if len(seeds) > 1 else None,
            interval=bootstrap_interval(scores),
        ),
        baselines=baselines,
        chosen_seed=chosen,
        details=details,
        advice=baseline.advice(run.settings) if is_behind else {},
        train_seconds=round(run.seconds(), 1),
        seconds=round(time.perf_counter() - started, 1),
        costs=measured,
    )
    write_atomically(run.folder / "outputs.npz", lambda path: _save_arrays(path, outputs[chosen]))
    by_example = {str(s): row.astype(np.float32) for s, row in zip(seeds, scores, strict=True)}
    write_atomically(run.folder / "scores.npz", lambda path: _save_arrays(path, by_example))
    write_json(run.folder / "evaluation.json", evaluation.model_dump())
    return evaluation


def bootstrap_interval(scores: np.ndarray, level: float = 0.95) -> Interval:
    """Return the percentile bootstrap interval of the mean of `scores` (seed, example).

    Seeds and examples are both resampled (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13). Examples that resemble their neighbours (windows of a series) are resampled
    in blocks of `objective.BLOCK_LENGTH`: the circular block bootstrap of Politis and Romano, 1992.
    """
    seeds, count = scores.shape
    length = min(objective.BLOCK_LENGTH, max(1, count // 3))  # of one block nothing would vary
    sums = np.cumsum(np.concatenate([scores, scores[:, :length]], axis=1), axis=1)
    blocks = (sums[:, length:] - sums[:, :-length]) / length  # mean of each block
    generator = np.random.default_rng(0)
    means = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        over_seeds = blocks[generator.integers(seeds, size=seeds)].mean(axis=0)
        means[number] = over_seeds[generator.integers(count, size=-(-count // length))].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _over_seeds(by_seed: dict[int, Metrics], pool: Callable[..., Any]) -> Metrics:
    names = next(iter(by_seed.values()))
    return {name: float(pool([row[name] for row in by_seed.values()])) for name in names}


def _save_arrays(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:  # given a name, NumPy would append .npz to it
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
