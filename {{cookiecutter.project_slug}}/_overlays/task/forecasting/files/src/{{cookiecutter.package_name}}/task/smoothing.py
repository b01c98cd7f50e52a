"""Exponential smoothing with up to two seasons, all candidates at once.

Taylor, Short-term electricity demand forecasting using double seasonal exponential smoothing,
Journal of the Operational Research Society 54 (2003), without trend: a level, a state per step of
each season, and errors that fade as an autoregression. One pass through a series updates every
candidate's states; a forecast from a step uses the states of that moment and nothing later. A
window that joined from a request, whose past is not the series', is a short series of its own.
"""

import itertools

import numpy as np

from ..interfaces import Arrays
from .data import Dataset

LEVEL = (0.0, 0.01, 0.05, 0.2)
SEASONS = (0.05, 0.15, 0.3)  # of each season
FADING = (0.0, 0.7, 0.9, 0.97)


def points(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Point forecasts (n, horizon) for validation and test, smoothed as suits validation best."""
    count = len(dataset.contract.seasons)
    weights = np.array(list(itertools.product(LEVEL, FADING, *[SEASONS] * count)))
    found = _forecast(dataset, dataset.validation, weights)
    errors = np.abs(found - dataset.validation["target"][:, :, None]).mean(axis=(0, 1))
    best = int(errors.argmin())
    test = _forecast(dataset, dataset.test, weights[best : best + 1])
    return found[:, :, best], test[:, :, 0]


def _forecast(dataset: Dataset, split: Arrays, weights: np.ndarray) -> np.ndarray:
    """Forecasts (n, horizon, candidate) from a split's origins."""
    horizon = dataset.contract.horizon
    found = np.empty((len(split["origin"]), horizon, len(weights)), np.float32)
    for number, series in enumerate(dataset.series):
        rows = np.flatnonzero(split["series"] == number)
        steps = (split["origin"][rows] - series.start) // dataset.contract.step
        values = dataset.contract.scaled(series.values, series.id)
        wanted: dict[int, list[int]] = {}
        for step, row in zip(steps.tolist(), rows.tolist(), strict=True):
            past = split["history"][row]
            if np.array_equal(values[max(step + 1 - len(past), 0) : max(step + 1, 0)], past):
                wanted.setdefault(step, []).append(row)
            else:
                own = {len(past) - 1: [row]}
                _smooth(past.astype(float), dataset.contract.seasons, weights, horizon, own, found)
        _smooth(values.astype(float), dataset.contract.seasons, weights, horizon, wanted, found)
    return found


def _smooth(
    values: np.ndarray,
    seasons: list[int],
    weights: np.ndarray,
    horizon: int,
    wanted: dict[int, list[int]],
    found: np.ndarray,
) -> None:
    """Fill `found[row]` with the forecasts after each wanted step {step: rows}."""
    gain, fading, *gains = weights.T
    longest = seasons[-1]
    level = np.full(len(weights), values[:longest].mean())
    states = [np.zeros((season, len(weights))) for season in seasons]
    states[-1] += (values[:longest] - values[:longest].mean())[:, None]
    left = np.zeros(len(weights))
    ahead = np.arange(1, horizon + 1)
    decay = fading[None] ** ahead[:, None]
    for step in range(longest, max(wanted, default=-1) + 1):
        places = [step % season for season in seasons]
        error = values[step] - level
        for state, place in zip(states, places, strict=True):
            error = error - state[place]
        shock = error - fading * left
        left = error
        level = level + gain * shock
        for state, place, own in zip(states, places, gains, strict=True):
            state[place] += own * shock
        if rows := wanted.get(step):
            pairs = zip(states, seasons, strict=True)
            seasonal = [state[(step + ahead) % season] for state, season in pairs]
            found[rows] = level + sum(seasonal) + decay * left
