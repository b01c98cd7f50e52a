"""The simple models that the network has to beat, on the same split and in good health.

All give point forecasts; their intervals are the quantiles of their own errors on validation, step
by step. Settings are chosen on validation, like the network's best epoch.
"""

from collections.abc import Iterator

import numpy as np

from ..interfaces import Arrays
from . import clock, smoothing
from .contract import QUANTILES, Contract
from .data import Dataset
from .ridge import Ridge

SPANS = {clock.DAY: "Daily", 7 * clock.DAY: "Weekly", 364 * clock.DAY: "Yearly"}


def names() -> list[str]:
    """What `predictions` will go through, to announce it."""
    return ["seasonal naive", "exponential smoothing", "ridge with the network's inputs"]


def predictions(dataset: Dataset) -> Iterator[tuple[str, Arrays]]:
    """(name, outputs on the test split) of each baseline."""
    contract = dataset.contract
    for season in contract.seasons:
        points = [naive(split, season) for split in (dataset.validation, dataset.test)]
        yield title(contract, season), with_intervals(dataset, *points)
    yield "Exponential smoothing", with_intervals(dataset, *smoothing.points(dataset))
    ridge = Ridge(contract).fit(dataset.train, dataset.validation)
    points = [ridge.predict(split) for split in (dataset.validation, dataset.test)]
    yield "Ridge with the same inputs", with_intervals(dataset, *points)


def naive(split: Arrays, season: int) -> np.ndarray:
    """Every future step as it was one season before, (n, horizon)."""
    steps = np.arange(split["target"].shape[1]) % season - season
    return split["history"][:, split["history"].shape[1] + steps]


def title(contract: Contract, season: int) -> str:
    """The name of a seasonal naive forecast."""
    span = SPANS.get(season * contract.step)
    return f"{span} naive" if span else f"Naive {season} steps back"


def with_intervals(dataset: Dataset, validation: np.ndarray, test: np.ndarray) -> Arrays:
    """Point forecasts (n, horizon) on both splits to quantiles on the test split."""
    errors = dataset.validation["target"] - validation
    low, high = np.quantile(errors, [QUANTILES[0], QUANTILES[-1]], axis=0)
    below, above = np.minimum(low, 0), np.maximum(high, 0)
    quantiles = np.stack([test + below, test, test + above], axis=2)
    return {"quantiles": quantiles.astype(np.float32)}
