"""Simple models that the network has to beat, on the same split.

All make point forecasts; their intervals are the quantiles of their errors on validation, for each
step ahead. Settings are tuned on validation, as the network's best epoch is chosen there.
"""

from collections.abc import Iterator

import numpy as np

from ..arrays import Arrays, in_chunks
from . import clock, smoothing, trees
from .contract import QUANTILES, Contract
from .data import Dataset
from .frequency import MONTH
from .ridge import Ridge
from .settings import Settings

SPANS = {clock.DAY: "Daily", 7 * clock.DAY: "Weekly", 364 * clock.DAY: "Yearly"}
SPANS |= {12 * MONTH: "Yearly"}


def names() -> list[str]:
    """Name the baselines before they are fitted."""
    return [
        "last value",
        "seasonal naive",
        "exponential smoothing",
        "ridge with the network's inputs",
        "ridge and exponential smoothing",
        "gradient-boosted trees on the ridge",
    ]


def advice(settings: Settings) -> dict[str, str]:
    """Return settings that may help the network where a baseline is ahead, with the reason."""
    longest = max(settings.data.seasons)
    wider = {f"data.window={2 * longest}": "two of the longest seasons are seen"}
    return {
        **(wider if settings.data.window < 2 * longest else {}),
        f"model.width={max(8, settings.model.width // 8 * 4)}": "short series overfit",
        "model.dropout=0.5": "likewise",
    }


def fit_and_predict(dataset: Dataset) -> Iterator[tuple[str, Arrays]]:
    """Fit each baseline; yield its name and its outputs (`quantiles`) on the test split."""
    contract = dataset.contract
    for season in sorted({1, *contract.seasons}):
        points = [naive(split, season) for split in (dataset.validation, dataset.test)]
        yield naive_name(contract, season), with_intervals(dataset, *points)
    ridge = Ridge(contract).fit(dataset.train, dataset.validation)
    smoothed = smoothing.forecast(dataset, ridge)
    yield "Exponential smoothing", with_intervals(dataset, *smoothed)
    points = [ridge.predict(split) for split in (dataset.validation, dataset.test)]
    yield "Ridge with the same inputs", with_intervals(dataset, *points)
    # The network is blended with smoothing too: without this, its lead could be the blend's.
    blend = smoothing.best_blend(points[0], smoothed[0], dataset.validation["target"])
    pairs = zip(points, smoothed, strict=True)
    blended = [point + blend * (other - point) for point, other in pairs]
    yield "Ridge and exponential smoothing", with_intervals(dataset, *blended)
    yield (
        "Gradient-boosted trees on the ridge",
        with_intervals(dataset, *trees.forecast(dataset, ridge)),
    )


def naive(split: Arrays, season: int) -> np.ndarray:
    """Forecast each step as its value one season before, (n, horizon)."""
    history, horizon = split["history"], split["target"].shape[1]
    columns = history.shape[1] + np.arange(horizon) % season - season
    return np.concatenate([chunk[""][:, columns] for chunk in in_chunks({"": history})])


def naive_name(contract: Contract, season: int) -> str:
    """Name the seasonal naive forecast; of season 1 it is persistence."""
    if season == 1:
        return "Last value"
    frequency = contract.frequency
    span = "Weekly" if frequency.usual_seasons == [5] == [season] else None
    span = span or SPANS.get(season * frequency.seconds)
    return f"{span} naive" if span else f"Naive {season} steps back"


def with_intervals(dataset: Dataset, validation: np.ndarray, test: np.ndarray) -> Arrays:
    """Turn point forecasts (n, horizon) on both splits into quantiles on the test split."""
    errors = dataset.validation["target"] - validation
    low, high = np.quantile(errors, [QUANTILES[0], QUANTILES[-1]], axis=0)
    below, above = np.minimum(low, 0), np.maximum(high, 0)
    quantiles = np.stack([test + below, test, test + above], axis=2)
    return {"quantiles": quantiles.astype(np.float32)}
