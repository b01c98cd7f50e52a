"""Evaluate the trained networks on the test split, against the baselines."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from . import checkpoint, costs
from .documents import BaselineResult, Evaluation, NetworkResult
from .fit import epoch_metric, pick_device, predict
from .intervals import level_of_each, mean_interval
from .runs import Run


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
    # part switched off.
    clusters = dataset.test_clusters()

    def compare(others: Mapping[str, Sequence[Arrays]]) -> dict[str, BaselineResult]:
        theirs = {
            name: np.stack([objective.scores(outputs, test) for outputs in each])
            for name, each in others.items()
        }
        leads = {name: sign * (scores - reference) for name, reference in theirs.items()}
        level = level_of_each(list(leads.values()), clusters) if leads else 0.95
        return {
            name: BaselineResult(
                metrics=_over_seeds([objective.metrics(o, test, contract) for o in each], np.mean),
                interval=mean_interval(theirs[name], clusters),
                ahead=float(leads[name].mean()),
                ahead_interval=mean_interval(leads[name], clusters, level),
            )
            for name, each in others.items()
        }

    predictions: dict[str, list[Arrays]] = {}
    echo(f"fitting baselines: {', '.join(baseline.names())}")
    report = ProgressLines(echo)
    for name, prediction in baseline.fit_and_predict(dataset):
        report(f"fitted: {name}")
        predictions[name] = [prediction]

    baselines = compare(predictions)

    # 3. The task's own tables about the chosen network.
    network = load_network(run, dataset, chosen)
    sentence = model.describe(network)
    weights = run.seed_folder(chosen) / "best.safetensors"
    measured = costs.measure(network, weights, test, run.settings.train.batch_size)
    details = objective.details(outputs[chosen], test, contract)
    if by_slice := _by_slice(outputs, dataset):
        details["by_slice"] = by_slice
    if isinstance(network, Diagnoses):
        details |= network.diagnose(dataset)

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
            mean=_over_seeds(by_seed.values(), np.mean),
            sd=_over_seeds(by_seed.values(), partial(np.std, ddof=1)) if len(seeds) > 1 else None,
            interval=mean_interval(scores, clusters),
        ),
        baselines=baselines,
        ablations=compare(ablated),
        chosen_seed=chosen,
        details=details,
        advice=baseline.advice(run.settings) if is_behind else {},
        train_seconds=round(run.seconds(), 1),
        seconds=round(time.perf_counter() - started, 1),
        costs=measured,
    )
    write_atomically(run.folder / "outputs.npz", lambda path: _save_arrays(path, outputs[chosen]))
    by_example = {str(s): row.astype(np.float32) for s, row in zip(seeds, scores, strict=True)}
    by_example |= {} if clusters is None else {"clusters": clusters}
    write_atomically(run.folder / "scores.npz", lambda path: _save_arrays(path, by_example))
    write_json(run.folder / "evaluation.json", evaluation.model_dump())
    return evaluation


def _by_slice(outputs: Mapping[int, Arrays], dataset: Dataset) -> dict[str, dict[str, float]]:
    """Score the slices of the test split over all seeds, with 95 % intervals."""
    test, clusters = dataset.test, dataset.test_clusters()
    scores = np.stack([objective.slice_scores(each, test) for each in outputs.values()])
    table = {}
    for name, mask in objective.slices(test, dataset.contract).items():
        inside = scores[:, mask]
        low, high = mean_interval(inside, None if clusters is None else clusters[mask])
        row = {"score": float(inside.mean()), "low": low, "high": high}
        table[name] = row | {"examples": int(mask.sum())}
    return table


def _over_seeds(by_seed: Iterable[Metrics], pool: Callable[..., Any]) -> Metrics:
    rows = list(by_seed)
    return {name: float(pool([row[name] for row in rows])) for name in rows[0]}


def _save_arrays(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:  # given a name, NumPy would append .npz to it
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
