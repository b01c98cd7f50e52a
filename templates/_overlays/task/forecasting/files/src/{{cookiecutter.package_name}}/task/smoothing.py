"""Exponential smoothing with up to two seasons, for all candidate settings at once.

Taylor, Short-term electricity demand forecasting using double seasonal exponential smoothing,
Journal of the Operational Research Society 54 (2003), without trend: a level, a state per step of
each season, and autoregressive errors. One pass through a series updates every candidate's states;
a forecast uses the states at its origin and nothing later. A window from a request, whose past is
not in the series, is smoothed as a short series of its own.
"""

import itertools

import numpy as np

from ..arrays import Arrays, evenly_spaced, row_count, select_rows
from .contract import Contract
from .data import Dataset
from .ridge import Ridge

LEVEL_GAINS = (0.0, 0.01, 0.05, 0.2)
SEASON_GAINS = (0.05, 0.15, 0.3)
ERROR_CORRELATIONS = (0.0, 0.7, 0.9, 0.97)
BLENDS = np.linspace(0, 1, 21)  # weights of one forecast beside another
FIT_WINDOWS = 500  # evenly spread, at most, to choose a filter: neighbours are nearly the same


def forecast(dataset: Dataset, ridge: Ridge) -> tuple[np.ndarray, np.ndarray]:
    """Return point forecasts (n, horizon) for validation and test.

    Settings are tuned on training and validation: four numbers hardly overfit. What special days
    add, by the ridge's profile, is not smoothed.
    """
    weights, count = _candidates(dataset.contract), row_count(dataset.train)
    some = select_rows(dataset.train, evenly_spaced(count, min(count, FIT_WINDOWS)))
    errors = []
    for split in (some, dataset.validation):
        forecasts = candidate_forecasts(dataset, split, weights, ridge)
        actual = split["target"][:][:, :, None]
        errors.append(np.abs(forecasts - actual).mean(axis=1))
    best = lowest_error(np.concatenate(errors))
    test = candidate_forecasts(dataset, dataset.test, weights[best : best + 1], ridge)
    return forecasts[:, :, best], test[:, :, 0]


def lowest_error(errors: np.ndarray) -> int:
    """Return the candidate of least mean error, of errors (row, candidate) relative to each row's
    mean over all candidates: a few hard days, such as a heat wave, must not decide alone."""
    relative = errors / np.maximum(errors.mean(axis=1, keepdims=True), np.finfo(float).tiny)
    return int(relative.mean(axis=0).argmin())


def fit_filter(contract: Contract, history: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the matrix (window, horizon) that smooths windows, tuned on `history`, `target`.

    Smoothing is linear in the past: forecasts of a window of zeros with a single one are its
    columns' weights. It sees the window only, less than `forecast`, which sees all of the past.
    """
    rows = evenly_spaced(len(target), min(len(target), FIT_WINDOWS))
    windows, actual = history[rows], target[rows]

    def smoothed(values: np.ndarray, candidate: np.ndarray) -> np.ndarray:
        forecasts = np.empty((1, contract.horizon, len(values)))
        each, last = np.tile(candidate, (len(values), 1)), {contract.window - 1: [0]}
        smooth(values.T.astype(float), contract.seasons, each, contract.horizon, last, forecasts)
        return forecasts[0].T

    candidates = _candidates(contract)
    errors = [np.abs(smoothed(windows, each) - actual).mean(axis=1) for each in candidates]
    return smoothed(np.eye(contract.window), candidates[lowest_error(np.stack(errors, axis=1))])


def best_blend(forecasts: np.ndarray, others: np.ndarray, target: np.ndarray) -> float:
    """Return the weight of `others` beside `forecasts` with the lowest absolute error."""
    gaps = others - forecasts
    errors = [np.abs(forecasts + weight * gaps - target).mean(axis=1) for weight in BLENDS]
    return float(BLENDS[lowest_error(np.stack(errors, axis=1))])


def _candidates(contract: Contract) -> np.ndarray:
    seasonal = [SEASON_GAINS] * len(contract.seasons)
    return np.array(list(itertools.product(LEVEL_GAINS, ERROR_CORRELATIONS, *seasonal)))


def candidate_forecasts(
    dataset: Dataset, split: Arrays, weights: np.ndarray, ridge: Ridge
) -> np.ndarray:
    """Forecast (n, horizon, candidate) from a split's origins; `weights` (candidate, gain)."""
    contract, profile = dataset.contract, ridge.profile.numpy()
    horizon, seasons = contract.horizon, contract.seasons
    ordinary, added = ridge.split_special_days(split)
    forecasts = np.empty((len(split["origin"]), horizon, len(weights)), np.float32)
    for number, series in enumerate(dataset.series):
        rows = np.flatnonzero(split["series"] == number)
        steps = series.find(split["origin"][rows])
        values = contract.scaled(series.values, series.id)
        rows_at: dict[int, list[int]] = {}
        for step, row in zip(steps.tolist(), rows.tolist(), strict=True):
            past = split["history"][row]
            if step + 1 >= len(past) and np.array_equal(
                values[step + 1 - len(past) : step + 1], past
            ):
                rows_at.setdefault(step, []).append(row)
            else:
                last = {len(past) - 1: [row]}
                smooth(ordinary[row].astype(float), seasons, weights, horizon, last, forecasts)
        values = values.astype(float) - contract.special_at(series.stamps) @ profile
        smooth(values, seasons, weights, horizon, rows_at, forecasts)
    forecasts += added[:, :, None]
    return forecasts


def smooth(
    values: np.ndarray,
    seasons: list[int],
    weights: np.ndarray,
    horizon: int,
    rows_at: dict[int, list[int]],
    forecasts: np.ndarray,
) -> None:
    """Write the forecasts made after each step in `rows_at` to these rows of `forecasts`.

    `values` are one series (step,) for all candidates, or one for each (step, candidate).
    """
    values = values.reshape(len(values), -1)
    gain, correlation, *gains = weights.T
    longest = seasons[-1]
    start = values[:longest].mean(axis=0)
    level = np.zeros(len(weights)) + start
    states = [np.zeros((season, len(weights))) for season in seasons]
    states[-1] += values[:longest] - start
    residual = np.zeros(len(weights))
    ahead = np.arange(1, horizon + 1)
    decay = correlation[None] ** ahead[:, None]
    for step in range(longest - 1, max(rows_at, default=-1) + 1):
        if step >= longest:  # what came before is in the states
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
