"""What the trained networks are worth on the test split, against the baselines."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..config import UserError
from ..files import write_atomically, write_json
from ..interfaces import Arrays, Calibrates, Diagnoses
from ..task import baseline, model, objective
from ..task.data import Dataset
from . import checkpoint
from .fit import pick_device, predict
from .runs import Run

RESAMPLES = 10_000


def load_network(run: Run, dataset: Dataset, seed: int) -> Any:
    """The network of a seed's best epoch, calibrated on validation if it can be."""
    path = run.seed_folder(seed) / "best.safetensors"
    if not path.exists():
        raise UserError(
            f"{path}: is missing, the run is not finished; go on with: train --resume {run.name}"
        )
    network = model.build(run.settings, dataset.contract)
    checkpoint.load_weights(path, network)
    network.to(pick_device(run.settings.train.device))
    if isinstance(network, Calibrates):
        outputs = predict(network, dataset.validation, run.settings.train.batch_size)
        network.calibrate(outputs, dataset.validation)
    return network


def evaluate(run: Run, dataset: Dataset, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure every seed and every baseline on the test split and write `evaluation.json`.

    The chosen seed, the one that will be deployed, is the best on *validation*.
    """
    started = time.perf_counter()
    seeds = run.settings.train.seeds
    outputs: dict[int, Arrays] = {}
    for seed in seeds:
        network = load_network(run, dataset, seed)
        outputs[seed] = predict(network, dataset.test, run.settings.train.batch_size)
    test, contract = dataset.test, dataset.contract
    by_seed = {seed: objective.metrics(outputs[seed], test, contract) for seed in seeds}
    scores = np.stack([objective.scores(outputs[seed], test) for seed in seeds])
    sign = 1 if objective.HIGHER_IS_BETTER else -1
    chosen = max(seeds, key=lambda seed: sign * run.history(seed)["best"])

    baselines: dict[str, Any] = {}
    say(f"fitting baselines: {', '.join(baseline.names())}")
    for name, answer in baseline.fit_and_predict(dataset):
        own = objective.scores(answer, test)[None]
        baselines[name] = {
            "metrics": objective.metrics(answer, test, contract),
            "interval": bootstrap_interval(own),
            "ahead": float(sign * (scores.mean() - own.mean())),
            "ahead_interval": bootstrap_interval(sign * (scores - own)),
        }
    network = load_network(run, dataset, chosen)
    described = model.describe(network)
    more = network.diagnose(dataset) if isinstance(network, Diagnoses) else {}
    result = {
        "run": run.name,
        "metric": objective.PRIMARY_METRIC,
        "higher_is_better": objective.HIGHER_IS_BETTER,
        "model": described,
        "rows": run.about["data"]["rows"],
        "network": {
            "seeds": {str(seed): metrics for seed, metrics in by_seed.items()},
            "mean": _over_seeds(by_seed, np.mean),
            "sd": _over_seeds(by_seed, lambda values: np.std(values, ddof=1))
            if len(seeds) > 1
            else None,
            "interval": bootstrap_interval(scores),
        },
        "baselines": baselines,
        "chosen_seed": chosen,
        "details": {**objective.details(outputs[chosen], test, contract), **more},
        "train_seconds": round(run.seconds(), 1),
        "seconds": round(time.perf_counter() - started, 1),
    }
    _save_arrays(run.folder / "outputs.npz", outputs[chosen])
    write_json(run.folder / "evaluation.json", result)
    return result


def bootstrap_interval(scores: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `scores` (seed, example), by default of 95 %.

    Seeds and examples are both drawn again, so the interval holds the chance of training and the
    chance of the sample. Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    Examples that resemble their neighbours (a series' windows) are drawn in blocks of
    `objective.BLOCK_LENGTH` neighbours, the last one's being the first: the circular block
    bootstrap of Politis and Romano, 1992.
    """
    seeds, count = scores.shape
    length = min(objective.BLOCK_LENGTH, count)
    sums = np.cumsum(np.concatenate([scores, scores[:, :length]], axis=1), axis=1)
    blocks = (sums[:, length:] - sums[:, :-length]) / length  # mean of each block
    draw = np.random.default_rng(0)
    means = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        some = blocks[draw.integers(seeds, size=seeds)].mean(axis=0)
        means[number] = some[draw.integers(count, size=-(-count // length))].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def verdict(row: dict[str, Any]) -> str:
    """Whether the network is ahead of a baseline, in a word that the interval allows."""
    low, high = row["ahead_interval"]
    return "ahead" if low > 0 else "behind" if high < 0 else "not distinguishable"


def _over_seeds(by_seed: dict[int, dict[str, float]], pool: Callable[..., Any]) -> dict[str, float]:
    first = next(iter(by_seed.values()))
    return {name: float(pool([found[name] for found in by_seed.values()])) for name in first}


def _save_arrays(path: Path, arrays: Arrays) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a name, NumPy would append .npz to it
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    write_atomically(path, write)
