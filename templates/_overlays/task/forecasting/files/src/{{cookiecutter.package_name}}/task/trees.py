"""Gradient-boosted trees on the ridge's forecast: a baseline that is not linear."""

import numpy as np

from ..arrays import Arrays, evenly_spaced, row_count, select_rows
from .contract import INPUTS, Contract
from .data import Dataset
from .ridge import Ridge

# chosen on validation of the default data without special days: MASE 0.710; scikit-learn's defaults
# 0.787, ridge 0.727
SHAPE = {"learning_rate": 0.03, "min_samples_leaf": 200, "max_leaf_nodes": 15, "max_iter": 150}
FIT_ROWS = 100_000  # windows × steps, evenly spread, at most
CHUNK = 1024  # windows in memory at once


def forecast(dataset: Dataset, ridge: Ridge) -> list[np.ndarray]:
    """Return point forecasts (n, horizon) for validation and test: the ridge's, corrected.

    One regressor for all steps ahead learns the ridge's residual by absolute error: Friedman,
    Greedy function approximation, Annals of Statistics 29 (2001), on binned features.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor  # slow to import

    contract, count = dataset.contract, row_count(dataset.train)
    windows = max(1, min(count, FIT_ROWS // contract.horizon))
    train = select_rows(dataset.train, evenly_spaced(count, windows))
    base = ridge.predict(train)
    trees = HistGradientBoostingRegressor(
        loss="absolute_error",
        early_stopping=False,  # pyright: ignore[reportArgumentType]  # its stubs know "auto" only
        random_state=0,
        **SHAPE,
    ).fit(_features(contract, train, base, ridge), (train["target"] - base).ravel())
    forecasts = []
    for split in (dataset.validation, dataset.test):
        base = ridge.predict(split)
        residual = trees.predict(_features(contract, split, base, ridge))
        forecasts.append(base + residual.reshape(base.shape))
    return forecasts


def _features(contract: Contract, split: Arrays, base: np.ndarray, ridge: Ridge) -> np.ndarray:
    """Describe each step ahead (n × horizon, feature): its number and inputs, the ridge's forecast,
    the values of the seasons before, the newest value and level, relative to the newest season;
    without what special days add."""
    steps, parts = np.arange(contract.horizon), []
    for first in range(0, len(base), CHUNK):
        rows = slice(first, first + CHUNK)
        chunk = {name: split[name][rows] for name in INPUTS}
        history, added = ridge.split_special_days(chunk)
        known, ordinary = chunk["known"][:, contract.window :], base[rows] - added
        level = history[:, -contract.season :].mean(axis=1, keepdims=True)
        lags = [history[:, contract.window + steps % s - s] - level for s in contract.seasons]
        newest = np.broadcast_to(history[:, -1:] - level, ordinary.shape)
        place = np.broadcast_to(steps, newest.shape)
        columns = [place, ordinary - level, ordinary - ordinary.mean(axis=1, keepdims=True)]
        columns += [*lags, newest, np.broadcast_to(level, newest.shape)]
        each = np.concatenate([np.stack(columns, axis=2), known], axis=2)
        parts.append(each.reshape(-1, each.shape[2]))
    return np.concatenate(parts)
