"""Load and check the series, and split them by time, without leakage.

The test split is the end; validation blocks are spread over the time before. A training window
(its past and its future) touches no step of a validation block or of the test, so no value that a
model is chosen or measured by is an input or a target in training. Validation and test windows
have all targets in their block; their past may reach into the training part, as in real use.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..arrays import Arrays
from ..config import UserError
from ..interfaces import LabelledItem, Splits
from . import clock
from .contract import Contract, Covariate, Scale
from .settings import DataSettings
from .table import Table, read_table

INCLUDED = Path(__file__).with_name("victoria_demand_2014.csv")
INCLUDED_SOURCE = (
    "Hourly electricity demand of Victoria, Australia. Source: Australian Energy Market Operator "
    f"(AEMO); keep the attribution, {INCLUDED.stem}.md, beside the file."
)
INCLUDED_LIMITS = (
    "The model knows no weather, public holidays or strikes: expect the largest errors there.",
    "A single year cannot teach a yearly season.",
    "Not for operating a grid or trading without people and further models.",
    "The data contains no personal data.",
)
MIN_TRAIN_WINDOWS = 100
MIN_ORIGINS = 72  # of validation and test: three blocks of the bootstrap


@dataclass(frozen=True)
class Series:
    """One series, complete and in order."""

    id: str
    start: int  # seconds
    offset: int  # steps from the start of the grid that all series share
    values: np.ndarray  # (n,) in the target's units
    covariates: np.ndarray  # (n, name)


@dataclass(frozen=True)
class Blocks:
    """Ranges [first, end) of steps of the common grid that training must not see."""

    validation: list[tuple[int, int]]
    test: tuple[int, int]


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits whose rows are windows, ordered by time except for rows added from requests:

    - `history` float32 (n, window) and `known` float32 (n, window + horizon, channel), the inputs
    - `target` float32 (n, horizon), scaled like the history
    - `origin` int64 (n,): the last time of the past, in seconds; `series` int64 (n,): its number
    - `center`, `unit` float64 (n,): target × unit + center is in the original units
    """

    contract: Contract
    series: list[Series] = field(repr=False)
    blocks: Blocks

    def example(self) -> dict[str, Any]:
        """Build a request's item (JSON) from the first test window."""
        return self.item(int(self.test["series"][0]), int(self.test["origin"][0]))

    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Encode items and what followed them as windows; ValueError for unusable ones.

        A ground truth must have a value for every step of the horizon.
        """
        contract, numbers = self.contract, {key: n for n, key in enumerate(self.contract.series)}
        items = [item for item, _ in pairs]
        inputs = contract.encode(items)
        keys = [next(iter(numbers)) if item.id is None else item.id for item in items]
        target = np.empty((len(pairs), contract.horizon), np.float32)
        for place, (key, (_, ground_truth)) in enumerate(zip(keys, pairs, strict=True)):
            if len(ground_truth.values) != contract.horizon:
                reason = f"got {len(ground_truth.values)} of {contract.horizon} steps"
                raise ValueError(f"example {place}: values: {reason}")
            target[place] = contract.scaled_actual(ground_truth, key)
        scales = [contract.series[key] for key in keys]
        return {
            **inputs,
            "target": target,
            "origin": np.array([contract.origin(item) for item in items], np.int64),
            "series": np.array([numbers[key] for key in keys], np.int64),
            "center": np.array([scale.center for scale in scales]),
            "unit": np.array([scale.unit for scale in scales]),
        }

    def item(self, number: int, origin: int) -> dict[str, Any]:
        """Build a request's item (JSON) from a series' past up to `origin` (seconds)."""
        contract, series = self.contract, self.series[number]
        end = (origin - series.start) // contract.step + 1
        first = end - contract.window
        stamps = [series.start + contract.step * row for row in range(first, end)]
        like = clock.EPOCH.replace(tzinfo=clock.UTC) if contract.offsets else clock.EPOCH
        item: dict[str, Any] = {
            "times": clock.format_times(stamps, like, contract.zone),
            "values": series.values[first:end].tolist(),
        }
        if contract.covariates:
            ahead = series.covariates[first : end + contract.horizon]
            names = [covariate.name for covariate in contract.covariates]
            item["covariates"] = dict(zip(names, ahead.T.tolist(), strict=True))
        return item if len(self.series) == 1 else {**item, "id": series.id}


def load(settings: DataSettings) -> Dataset:
    """Load the data that the settings name; UserError in one line that names file, row, column."""
    path = settings.path or INCLUDED
    # 1. Read the series and put them on one grid.
    all_series, step, offsets = _read_series(settings, path)
    # 2. Split the grid and fit the scalers.
    blocks = split_grid(settings, max(row.offset + len(row.values) for row in all_series))
    contract = _fit_contract(settings, path, all_series, step, offsets, blocks)
    # 3. Cut the windows.
    by_split = {
        name: _windows(contract, all_series, origins(settings, contract, blocks, name))
        for name in ("train", "validation", "test")
    }
    needed = {"train": MIN_TRAIN_WINDOWS, "validation": MIN_ORIGINS, "test": MIN_ORIGINS}
    for name, least in needed.items():
        count = len(np.unique(by_split[name]["origin"]))
        if count < least:
            raise UserError(
                f"{path}: too short: {name} gets {count} windows of {settings.window} past "
                f"and {settings.horizon} future steps and needs {least}; add rows, or lower "
                "data.window, data.seasons, data.horizon or data.validation_blocks, or change "
                "the shares"
            )
    about = (
        f"{settings.target} of {path.name}: {sum(len(series.values) for series in all_series):,} "
        f"rows in steps of {clock.span_name(step)}"
        + (f", {len(all_series)} series" if len(all_series) > 1 else "")
        + f". Split by time: {len(blocks.validation)} validation blocks spread over the time "
        f"before the test, which is the last {settings.test_share:.0%}; no training window "
        "touches them."
    )
    if settings.path is None:
        about += f" {INCLUDED_SOURCE}"
    return Dataset(
        *by_split.values(),
        about=about,
        contract=contract,
        series=all_series,
        blocks=blocks,
        limits=INCLUDED_LIMITS if settings.path is None else (),
    )


def split_grid(settings: DataSettings, count: int) -> Blocks:
    """Put validation blocks in the middle of equal parts of the grid, the test at its end."""
    test = count - round(settings.test_share * count)
    part = test / settings.validation_blocks
    length = settings.validation_share * count / settings.validation_blocks
    middles = [(number + 0.5) * part for number in range(settings.validation_blocks)]
    blocks = [(round(middle - length / 2), round(middle + length / 2)) for middle in middles]
    return Blocks(blocks, (test, count))


def _read_series(settings: DataSettings, path: Path) -> tuple[list[Series], int, bool]:
    """Return the file's series, their step in seconds, and whether times have UTC offsets."""
    # 1. Read the columns; group the rows by series.
    rows = read_table(path, settings.table)
    moments = rows.times(settings.time, "data.time")
    values = rows.numbers(settings.target, "data.target")
    columns = [rows.numbers(name, "data.covariates") for name in settings.covariates]
    covariates = np.array(columns).T.reshape(len(values), len(columns))
    rows_of: dict[str, list[int]] = {}
    ids = rows.texts(settings.id, "data.id") if settings.id else [""] * len(values)
    for place, key in enumerate(ids):
        if settings.id and not key:
            raise rows.error(place, settings.id, "is empty")
        rows_of.setdefault(key, []).append(place)
    # 2. Convert the times to seconds.
    zone = None if settings.timezone is None else clock.ZoneInfo(settings.timezone)
    stamps, places = np.empty(len(moments), np.int64), list(range(len(moments)))
    try:
        clock.check_times(moments)
        for places in rows_of.values():
            stamps[places] = clock.to_seconds([moments[place] for place in places], zone)
    except clock.BadTime as error:
        raise rows.error(places[error.position], settings.time, str(error)) from None
    offsets = moments[0].tzinfo is not None
    # 3. Infer the step; check that every series is regular and on the same grid.
    steps = np.concatenate([np.diff(stamps[places]) for places in rows_of.values()])
    if not len(steps):
        raise rows.error(len(rows) - 1, None, "one row per series is not a time series")
    lengths, counts = np.unique(np.abs(steps), return_counts=True)
    step = int(lengths[counts.argmax()])
    for places in rows_of.values():
        _check_order(rows, settings, stamps, places, step, offsets)
    starts = {key: int(stamps[places[0]]) for key, places in rows_of.items()}
    first, first_key = min(starts.values()), next(iter(starts))
    all_series = []
    for key, places in rows_of.items():
        if (starts[key] - starts[first_key]) % step:
            raise UserError(
                f"{path}: column {settings.id!r}: the series {key!r} is not on the same grid of "
                f"{clock.span_name(step)} as {first_key!r}"
            )
        offset = (starts[key] - first) // step
        all_series.append(Series(key, starts[key], offset, values[places], covariates[places]))
    return all_series, step, offsets


def _check_order(
    rows: Table,
    settings: DataSettings,
    stamps: np.ndarray,
    places: list[int],
    step: int,
    offsets: bool,
) -> None:
    """Raise UserError at a series' first row that is not one step after the row before."""
    # 1. Locate the row.
    stamps = stamps[places]
    steps = np.diff(stamps)
    wrong = (steps != step) | (steps <= 0)
    if not wrong.any():
        return
    bad = int(np.argmax(wrong))
    row, before = places[bad + 1], places[bad]
    texts = rows.texts(settings.time, "data.time")
    change, earlier = int(steps[bad]), rows.row(before)
    # 2. Say what is wrong with it.
    local = not offsets and settings.timezone is None
    clock_change = local and abs(change - step) in (1800, 3600)
    same = np.flatnonzero(stamps == stamps[bad + 1])
    if change == 0 or (change < 0 and same[0] <= bad):
        earlier = rows.row(places[same[0]])
        reason = f"{texts[row]} is a duplicate of row {earlier}"
        clock_change |= local and -change in (0, 1800, 3600)
    elif change < 0:
        reason = f"{texts[row]} is earlier than row {earlier} ({texts[before]}); sort by time"
    elif change % step == 0:
        reason = (
            f"{change // step - 1} rows of {clock.span_name(step)} are missing between row "
            f"{earlier} ({texts[before]}) and {texts[row]}"
        )
    else:
        span, usual = clock.span_name(change), clock.span_name(step)
        reason = f"{texts[row]} is {span} after row {earlier}, steps are {usual}"
    # 3. Suggest what to do.
    if change == 0 and settings.id is None:
        reason += "; if there are several series, name their column in data.id"
    if clock_change:
        reason += "; if this is daylight saving, set data.timezone or write times with UTC offsets"
    raise rows.error(row, settings.time, reason)


def _fit_contract(
    settings: DataSettings,
    path: Path,
    all_series: list[Series],
    step: int,
    offsets: bool,
    blocks: Blocks,
) -> Contract:
    """Fit the scalers to the steps outside validation and test; choose the calendar features."""
    season, scales, pooled = settings.seasons[-1], {}, []
    for series in all_series:
        mask = np.ones(len(series.values), bool)
        for first, end in [*blocks.validation, blocks.test]:
            mask[max(first - series.offset, 0) : max(end - series.offset, 0)] = False
        pooled.append(series.covariates[mask])
        values = series.values[mask]
        both = mask[season:] & mask[:-season]
        changes = np.abs(series.values[season:] - series.values[:-season])[both]
        label = f" of the series {series.id!r}" if series.id else ""
        if not len(changes):
            raise UserError(
                f"{path}: row {len(series.values) + 1}: the {len(series.values)} rows{label} "
                f"contain no two training steps that are {season} apart (data.seasons)"
            )
        if not changes.max() > 1e-9 * max(np.abs(values).max(), 1e-30):
            raise UserError(
                f"{path}: column {settings.target!r}: the values{label} never change from one "
                "season to the next in the training part; there is nothing to learn"
            )
        scales[series.id] = Scale(center=float(values.mean()), unit=float(changes.mean()))
    covariates = []
    for name, column in zip(settings.covariates, np.concatenate(pooled).T, strict=True):
        center, spread = float(column.mean()), float(column.std())
        if not spread > 0:
            raise UserError(f"{path}: column {name!r}: is constant in the training part")
        covariates.append(Covariate(name=name, center=center, spread=spread))
    years = step * blocks.test[0] / (365 * clock.DAY)
    periods = {"day": step < clock.DAY, "week": step < 7 * clock.DAY, "year": years >= 2}
    return Contract(
        target=settings.target,
        step=step,
        seasons=settings.seasons,
        window=settings.window,
        horizon=settings.horizon,
        offsets=offsets,
        timezone=settings.timezone,
        calendar=[period for period, useful in periods.items() if useful] or ["year"],
        covariates=covariates,
        series=scales,
    )


def origins(
    settings: DataSettings, contract: Contract, blocks: Blocks, name: str
) -> Iterator[np.ndarray]:
    """Yield the origins (last steps of the past) of a split's windows, per range of the grid."""
    window, horizon = contract.window, contract.horizon
    if name == "train":
        ends = [0, *(end for _, end in blocks.validation)]
        starts = [*(first for first, _ in blocks.validation), blocks.test[0]]
        for end, start in zip(ends, starts, strict=True):
            yield np.arange(end + window - 1, start - horizon, settings.stride)
    else:
        # Neighbouring windows are nearly the same: eight per horizon are enough to evaluate.
        stride = max(1, horizon // 8)
        for first, end in blocks.validation if name == "validation" else [blocks.test]:
            yield np.arange(first - 1, end - horizon, stride)


def _windows(contract: Contract, all_series: list[Series], ranges: Iterator[np.ndarray]) -> Arrays:
    """Cut the windows with these origins, ordered by time."""
    window, horizon, grid_steps = contract.window, contract.horizon, np.concatenate(list(ranges))
    parts: list[Arrays] = []
    for number, series in enumerate(all_series):
        rows, count = grid_steps - series.offset, len(series.values)
        rows = rows[(rows >= window - 1) & (rows < count - horizon)]
        if not len(rows):
            continue
        values = contract.scaled(series.values, series.id)
        stamps = series.start + contract.step * np.arange(count)
        known = contract.known(stamps, series.covariates)
        scale = contract.series[series.id]
        known_windows = sliding_window_view(known, window + horizon, axis=0).transpose(0, 2, 1)
        part = {
            "history": sliding_window_view(values, window)[rows - window + 1],
            "known": known_windows[rows - window + 1],
            "target": sliding_window_view(values, horizon)[rows + 1],
            "origin": stamps[rows],
            "series": np.full(len(rows), number),
            "center": np.full(len(rows), scale.center),
            "unit": np.full(len(rows), scale.unit),
        }
        parts.append(part)
    if not parts:
        return {"origin": np.empty(0, np.int64)}
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(joined["origin"], kind="stable")
    return {key: np.ascontiguousarray(array[order]) for key, array in joined.items()}
