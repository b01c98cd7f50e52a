"""Exponential smoothing with up to two seasons, for all candidate settings at once.

Taylor, Short-term electricity demand forecasting using double seasonal exponential smoothing,
Journal of the Operational Research Society 54 (2003), without trend: a level, a state per step of
each season, and autoregressive errors. One pass through a series updates every candidate's states;
a forecast uses the states at its origin and nothing later. A window from a request, whose past is
not in the series, is smoothed as a short series of its own.
"""

import itertools

import numpy as np

from ..arrays import Arrays
from .data import Dataset

LEVEL_GAINS = (0.0, 0.01, 0.05, 0.2)
SEASON_GAINS = (0.05, 0.15, 0.3)
ERROR_CORRELATIONS = (0.0, 0.7, 0.9, 0.97)


def forecast(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return point forecasts (n, horizon) for validation and test, tuned on validation."""
    count = len(dataset.contract.seasons)
    grid = itertools.product(LEVEL_GAINS, ERROR_CORRELATIONS, *[SEASON_GAINS] * count)
    weights = np.array(list(grid))
    validation = candidate_forecasts(dataset, dataset.validation, weights)
    errors = np.abs(validation - dataset.validation["target"][:, :, None]).mean(axis=(0, 1))
    best = int(errors.argmin())
    test = candidate_forecasts(dataset, dataset.test, weights[best : best + 1])
    return validation[:, :, best], test[:, :, 0]


def candidate_forecasts(dataset: Dataset, split: Arrays, weights: np.ndarray) -> np.ndarray:
    """Forecast (n, horizon, candidate) from a split's origins; `weights` (candidate, gain)."""
    horizon, seasons = dataset.contract.horizon, dataset.contract.seasons
    forecasts = np.empty((len(split["origin"]), horizon, len(weights)), np.float32)
    for number, series in enumerate(dataset.series):
        rows = np.flatnonzero(split["series"] == number)
        steps = series.find(split["origin"][rows])
        values = dataset.contract.scaled(series.values, series.id)
        rows_at: dict[int, list[int]] = {}
        for step, row in zip(steps.tolist(), rows.tolist(), strict=True):
            past = split["history"][row]
            if step + 1 >= len(past) and np.array_equal(
                values[step + 1 - len(past) : step + 1], past
            ):
                rows_at.setdefault(step, []).append(row)
            else:
                last = {len(past) - 1: [row]}
                smooth(past.astype(float), seasons, weights, horizon, last, forecasts)
        smooth(values.astype(float), seasons, weights, horizon, rows_at, forecasts)
    return forecasts


def smooth(
    values: np.ndarray,
    seasons: list[int],
    weights: np.ndarray,
    horizon: int,
    rows_at: dict[int, list[int]],
    forecasts: np.ndarray,
) -> None:
    """Write the forecasts made after each step in `rows_at` to these rows of `forecasts`."""
    gain, correlation, *gains = weights.T
    longest = seasons[-1]
    level = np.full(len(weights), values[:longest].mean())
    states = [np.zeros((season, len(weights))) for season in seasons]
    states[-1] += (values[:longest] - values[:longest].mean())[:, None]
    residual = np.zeros(len(weights))
    ahead = np.arange(1, horizon + 1)
    decay = correlation[None] ** ahead[:, None]
    for step in range(longest, max(rows_at, default=-1) + 1):
        places = [step % season for season in seasons]
        error = values[step] - level
        for state, place in zip(states, places, strict=True):
            error = error - state[place]
        shock = error - correlation * residual
        residual = error
        level = level + gain * shock
        for state, place, season_gain in zip(states, places, gains, strict=True):
            state[place] += season_gain * shock
        if rows := rows_at.get(step):
            pairs = zip(states, seasons, strict=True)
            seasonal = [state[(step + ahead) % season] for state, season in pairs]
            forecasts[rows] = level + sum(seasonal) + decay * residual
