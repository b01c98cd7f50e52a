"""Evaluate the trained networks on the test split, against the baselines."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..arrays import Arrays
from ..config import UserError
from ..files import write_atomically, write_json
from ..interfaces import Ablates, Calibrates, Diagnoses, Metrics
from ..progress import ProgressLines
from ..task import baseline, model, objective
from ..task.data import Dataset
from . import checkpoint
from .documents import BaselineResult, Evaluation, NetworkResult
from .fit import epoch_metric, pick_device, predict
from .intervals import mean_interval
from .runs import Run

ERROR = 0.05  # error rate of an interval, and of the leads' intervals together


def load_network(run: Run, dataset: Dataset, seed: int) -> Any:
    """Load the network of a seed's best epoch, calibrated on validation if it can be."""
    path = run.seed_folder(seed) / "best.safetensors"
    if not path.exists():
        command = f"train --resume {run.name}"
        raise UserError(f"{path}: missing, the run is not finished; go on with: {command}")
    network = model.build(run.settings, dataset.contract)
    checkpoint.load_weights(path, network)
    network.to(pick_device(run.settings.train.device))
    calibrate(network, run, dataset)
    return network


def calibrate(network: nn.Module, run: Run, dataset: Dataset) -> None:
    """Calibrate a network on validation if it can be."""
    if isinstance(network, Calibrates):
        outputs = predict(network, dataset.validation, run.settings.train.batch_size)
        network.calibrate(outputs, dataset.validation)


def evaluate(run: Run, dataset: Dataset, echo: Callable[[str], None] = print) -> Evaluation:
    """Measure every seed and every baseline on the test split and write `evaluation.json`."""
    started = time.perf_counter()
    test, contract, seeds = dataset.test, dataset.contract, run.settings.train.seeds
    sign = 1 if objective.HIGHER_IS_BETTER else -1

    # 1. The network of every seed. The one to deploy is the best on *validation*.
    outputs: dict[int, Arrays] = {}
    ablated: dict[str, list[Arrays]] = {}
    for seed in seeds:
        network = load_network(run, dataset, seed)
        outputs[seed] = predict(network, test, run.settings.train.batch_size)
        for name, part in network.ablations().items() if isinstance(network, Ablates) else ():
            calibrate(part, run, dataset)
            rows = predict(part, test, run.settings.train.batch_size)
            ablated.setdefault(name, []).append(rows)
    by_seed = {seed: objective.metrics(outputs[seed], test, contract) for seed in seeds}
    scores = np.stack([objective.scores(outputs[seed], test) for seed in seeds])
    best = {seed: run.history(seed).best or 0.0 for seed in seeds}  # None before the first epoch
    direction = 1 if epoch_metric(run.settings).higher_is_better else -1
    chosen = max(seeds, key=lambda seed: direction * best[seed])

    # 2. Every baseline, and by how much the networks are ahead of it; the same for networks with a
    # part switched off. All claims together err in 5 % of evaluations (Bonferroni).
    interval = partial(
        mean_interval, block=objective.BLOCK_LENGTH, clusters=dataset.test_clusters()
    )

    def compare(others: Sequence[Arrays], count: int) -> BaselineResult:
        measured = [objective.metrics(each, test, contract) for each in others]
        theirs = np.stack([objective.scores(each, test) for each in others])
        return BaselineResult(
            metrics=_over_seeds(dict(enumerate(measured)), np.mean),
            interval=interval(theirs, level=1 - ERROR),
            ahead=float(sign * (scores.mean() - theirs.mean())),
            ahead_interval=interval(sign * (scores - theirs), level=1 - ERROR / count),
        )

    baselines: dict[str, BaselineResult] = {}
    names = baseline.names()
    echo(f"fitting baselines: {', '.join(names)}")
    report = ProgressLines(echo)
    for name, prediction in baseline.fit_and_predict(dataset):
        report(f"fitted: {name}")
        baselines[name] = compare([prediction], len(names))
    ablations = {name: compare(others, len(ablated)) for name, others in ablated.items()}

    # 3. The task's own tables about the chosen network.
    network = load_network(run, dataset, chosen)
    sentence = model.describe(network)
    details = objective.details(outputs[chosen], test, contract)
    if isinstance(network, Diagnoses):
        details |= network.diagnose(dataset)

    is_behind = any(result.ahead < 0 for result in baselines.values())

    # 4. Both files; `evaluation.json` comes last, for it marks the evaluation as complete.
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
            interval=interval(scores, level=1 - ERROR),
        ),
        baselines=baselines,
        ablations=ablations,
        chosen_seed=chosen,
        details=details,
        advice=baseline.advice(run.settings) if is_behind else {},
        train_seconds=round(run.seconds(), 1),
        seconds=round(time.perf_counter() - started, 1),
    )
    write_atomically(run.folder / "outputs.npz", lambda path: _save_arrays(path, outputs[chosen]))
    write_json(run.folder / "evaluation.json", evaluation.model_dump())
    return evaluation


def _over_seeds(by_seed: dict[int, Metrics], pool: Callable[..., Any]) -> Metrics:
    names = next(iter(by_seed.values()))
    return {name: float(pool([row[name] for row in by_seed.values()])) for name in names}


def _save_arrays(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:  # given a name, NumPy would append .npz to it
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
