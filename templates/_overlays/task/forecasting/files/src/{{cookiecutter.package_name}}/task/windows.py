"""Split the time, and cut windows: views into the series, which are never copied whole.

The test split is the end; validation blocks are spread over the time before. A training window
(its past and its future) touches no step of a validation block or of the test, so no value that a
model is chosen or measured by is an input or a target in training. Validation and test windows
have all targets in their block; their past may reach into the training part, as in real use.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..arrays import Arrays, LazyArray, select_rows
from .contract import Contract, Scale
from .grid import Series
from .settings import DataSettings

LEAST_HORIZONS = 2  # in a part to validate or test on


@dataclass(frozen=True)
class Blocks:
    """Ranges [first, end) of steps of the common grid that training must not see."""

    validation: list[tuple[int, int]]
    test: tuple[int, int]


class Windows(LazyArray):
    """Windows (n, length, …) of a source (step, …), each from the step in `starts` (n,)."""

    def __init__(self, source: np.ndarray, starts: np.ndarray, length: int) -> None:
        self.source, self.starts, self.length = source, starts, length
        self.shape = (len(starts), length, *source.shape[1:])
        self.dtype = source.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        view = sliding_window_view(self.source, self.length, axis=0)
        return np.ascontiguousarray(np.moveaxis(view, -1, 1)[self.starts[rows]])

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(self.source, self.starts[rows], self.length)


class KnownWindows(LazyArray):
    """The input `known`: windows of the calendar and the covariates, without unknown futures."""

    def __init__(self, windows: Windows, origins: np.ndarray, contract: Contract) -> None:
        self.windows, self.origins, self.contract = windows, origins, contract
        self.shape, self.dtype = windows.shape, windows.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        made, contract = self.windows[np.atleast_1d(np.arange(len(self))[rows])], self.contract
        contract.hide_future(made)
        if contract.frequency.rows:  # a request's future times are guessed, so here too
            origins = np.atleast_1d(self.origins[rows])[:, None]
            ahead = contract.frequency.after(origins, np.arange(1, contract.horizon + 1))
            calendar = contract.calendar_at(ahead)
            made[:, contract.window :, : contract.calendar_channels] = calendar
            first = contract.channels - contract.special_channels
            made[:, contract.window :, first:] = contract.special_at(ahead)
        return made[0] if np.ndim(self.origins[rows]) == 0 else made

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(self.windows.take(rows), self.origins[rows], self.contract)


class FirstChannels(LazyArray):
    """The first `count` channels of a column of windows (n, step, channel)."""

    def __init__(self, column: Any, count: int) -> None:
        self.column, self.count, self.dtype = column, count, column.dtype
        self.shape = (*column.shape[:-1], count)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.column[rows][..., : self.count]

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(select_rows({"": self.column}, rows)[""], self.count)


def split_grid(settings: DataSettings, count: int) -> Blocks:
    """Put the test at the grid's end and validation blocks in the middle of equal parts before it.

    Each is at least two horizons long, for which there may be fewer blocks; a single one is right
    before the test. With `data.test_fold` the grid ends with that block of the rolling origin, of
    which all together take the last half at most (Tashman, Out-of-sample tests of forecasting
    accuracy, 2000).
    """
    least = LEAST_HORIZONS * settings.horizon
    length = max(round(settings.test_share * count), least)
    if settings.test_fold is not None:
        length = max(min(length, count // (2 * settings.folds)), least)
        count -= (settings.folds - 1 - settings.test_fold) * length
    test = count - length
    total = settings.validation_share * count
    number = max(1, min(settings.validation_blocks, int(total // least)))
    length = max(total / number, least)
    part = test / number
    middles = [(place + 0.5) * part for place in range(number)]
    blocks = [(round(middle - length / 2), round(middle + length / 2)) for middle in middles]
    return Blocks(blocks if number > 1 else [(test - round(length), test)], (test, count))


def longest_window(blocks: Blocks, windows: int) -> int:
    """Return the most steps, past and future, of which training gets so many windows."""
    gaps = np.array([end - first for first, end in _training_ranges(blocks)])
    lengths = np.arange(1, gaps.max() + 1)
    counts = np.maximum(gaps[:, None] - lengths + 1, 0).sum(axis=0)
    return int((counts >= windows).sum())


def cut_windows(
    settings: DataSettings, contract: Contract, all_series: list[Series], blocks: Blocks
) -> dict[str, Arrays]:
    """Return the windows of each split, ordered by time."""
    lengths = np.array([len(series.values) for series in all_series])
    values = np.concatenate([contract.scaled(one.values, one.id) for one in all_series])
    known = np.concatenate(
        [contract.known(one.stamps, one.covariates, one.id) for one in all_series]
    )
    stamps = np.concatenate([series.stamps for series in all_series])
    first_rows = np.cumsum(lengths) - lengths
    return {
        name: _cut_split(
            contract,
            (values, known, stamps),
            [
                first + origin_rows(settings, series, blocks, name)
                for first, series in zip(first_rows, all_series, strict=True)
            ],
            [contract.series[series.id] for series in all_series],
            lazy_target=name == "train",
        )
        for name in ("train", "validation", "test")
    }


def origin_rows(settings: DataSettings, series: Series, blocks: Blocks, name: str) -> np.ndarray:
    """Return the rows of a series at which a split's windows end their past, ascending.

    None is at a filled step, whose value may be made of later ones, and no target to measure on is
    a filled one.
    """
    window, horizon, positions = settings.window, settings.horizon, series.positions
    rows = np.arange(window - 1, len(positions) - horizon)
    start, origin = positions[rows - window + 1], positions[rows]
    first_target, end = positions[rows + 1], positions[rows + horizon] + 1
    filled = np.concatenate([[0], np.cumsum(series.filled)])
    chosen = np.zeros(len(rows), bool)
    if name == "train":
        for low, high in _training_ranges(blocks):
            on_stride = (origin - (low + window - 1)) % settings.stride == 0
            chosen |= (start >= low) & (end <= high) & on_stride
        edges = (
            series.filled[rows] | series.filled[rows - window + 1] | series.filled[rows + horizon]
        )
        return rows[chosen & ~edges]
    # Neighbouring windows are nearly the same: eight per horizon are enough to evaluate.
    stride = max(1, horizon // 8)
    for low, high in blocks.validation if name == "validation" else [blocks.test]:
        on_stride = (origin - (low - 1)) % stride == 0
        chosen |= (first_target >= low) & (end <= high) & on_stride
    made_up = filled[rows + horizon + 1] - filled[rows] > 0
    return rows[chosen & ~made_up]


def _training_ranges(blocks: Blocks) -> Iterator[tuple[int, int]]:
    ends = [0, *(end for _, end in blocks.validation)]
    starts = [*(first for first, _ in blocks.validation), blocks.test[0]]
    yield from zip(ends, starts, strict=True)


def _cut_split(
    contract: Contract,
    source: tuple[np.ndarray, np.ndarray, np.ndarray],
    rows_of_series: list[np.ndarray],
    scales: list[Scale],
    lazy_target: bool,
) -> Arrays:
    """Build a split's columns from rows of the concatenated series: values, `known`, times."""
    values, known, stamps = source
    window, horizon = contract.window, contract.horizon
    rows = np.concatenate(rows_of_series)
    number = np.repeat(np.arange(len(rows_of_series)), [len(one) for one in rows_of_series])
    order = np.argsort(stamps[rows], kind="stable")
    rows, number = rows[order], number[order]
    target = Windows(values, rows + 1, horizon)
    columns: dict[str, Any] = {
        "history": Windows(values, rows - window + 1, window),
        "known": KnownWindows(
            Windows(known, rows - window + 1, window + horizon), stamps[rows], contract
        ),
        "target": target if lazy_target else target[:],
        "origin": stamps[rows],
        "series": number,
        "center": np.array([scale.center for scale in scales])[number],
        "unit": np.array([scale.unit for scale in scales])[number],
    }
    return columns
