"""The data set: series from a file, split by time without leakage, with scalers fitted to training.

`series` reads and repairs the series, `windows` splits the time and cuts windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Arrays, row_count
from ..config import UserError
from ..interfaces import LabelledItem, Splits
from . import clock
from .contract import Contract, Covariate, Scale
from .frequency import Frequency
from .grid import Series
from .series import SeriesSet, keep_usable, read_series
from .settings import DataSettings
from .windows import (
    LEAST_HORIZONS,
    Blocks,
    FirstChannels,
    cut_windows,
    longest_window,
    split_grid,
)

INCLUDED = Path(__file__).with_name("victoria_demand_2014.csv")
INCLUDED_SOURCE = (
    "Hourly electricity demand of Victoria, Australia. Source: Australian Energy Market Operator "
    f"(AEMO); keep the attribution, {INCLUDED.stem}.md, beside the file."
)
INCLUDED_LIMITS = (
    "The model knows no weather or strikes, and no public holiday that data.special_days lacks: "
    "expect the largest errors there.",
    "A single year cannot teach a yearly season.",
    "Not for operating a grid or trading without people and further models.",
    "The data contains no personal data.",
)
# Below these a split is refused; below those of FEW, intervals are wide and the report says so.
LEAST = {"train": 20, "validation": 6, "test": 6}
FEW = {"train": 100, "validation": 72, "test": 72}
MANY_WINDOWS = 200_000
MAX_CATEGORIES = 100


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits whose rows are windows, ordered by time except for rows added from requests:

    - `history` float32 (n, window) and `known` float32 (n, window + horizon, channel), the inputs,
      made when they are needed
    - `target` float32 (n, horizon), scaled like the history
    - `origin` int64 (n,): the last time of the past, in seconds; `series` int64 (n,): its number
    - `center`, `unit` float64 (n,): target × unit + center is in the original units
    """

    contract: Contract
    series: list[Series] = field(repr=False)
    blocks: Blocks

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all splits without the channels of special days, which are settings: a run
        with other ones is of the same data, and compared."""
        if not self.contract.special_channels:
            return super().fingerprint
        count = self.contract.channels - self.contract.special_channels
        splits = {
            name: {**split, "known": FirstChannels(split["known"], count)}
            for name in ("train", "validation", "test")
            for split in [getattr(self, name)]
        }
        return super(Dataset, replace(self, **splits)).fingerprint

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
        end = int(series.find(np.array([origin]))[0]) + 1
        first = end - contract.window
        like = clock.EPOCH.replace(tzinfo=clock.UTC) if contract.offsets else clock.EPOCH
        item: dict[str, Any] = {
            "target": contract.target,
            "times": clock.format_times(series.stamps[first:end].tolist(), like, contract.zone),
            "values": series.values[first:end].tolist(),
        }
        if contract.covariates:
            item["covariates"] = {}
        for covariate, column in zip(contract.covariates, series.covariates.T, strict=True):
            last = end if covariate.past_only else end + contract.horizon
            item["covariates"][covariate.name] = column[first:last].tolist()
        return item if len(self.series) == 1 else {**item, "id": series.id}


def load(settings: DataSettings) -> Dataset:
    """Load the data that the settings name; UserError in one line that names file, row, column."""
    path = settings.path or INCLUDED
    # 1. Read the series and put them on one grid.
    found = read_series(settings, path)
    # 2. Split the grid and fit the scalers.
    count = max(int(series.positions[-1]) + 1 for series in found.series)
    least = settings.window + settings.horizon * (1 + 2 * LEAST_HORIZONS) + LEAST["train"]
    if count < least:
        raise UserError(_too_short(settings, found, path, f"{count} rows, at least {least} needed"))
    blocks = split_grid(settings, count)
    if blocks.test[1] < least:
        reason = f"fold {settings.test_fold} ends after {blocks.test[1]} rows, {least} needed"
        raise UserError(_too_short(settings, found, path, reason))
    found = replace(found, series=[one.until(blocks.test[1]) for one in found.series])
    series, contract, notes = _fit_contract(settings, path, found, blocks)
    # 3. Cut the windows.
    splits = cut_windows(settings, contract, series, blocks)
    for name, least in LEAST.items():
        origins = len(np.unique(splits[name]["origin"]))
        if origins < least:
            fits = longest_window(blocks, LEAST["train"])
            reason = (
                f"{name} gets {origins} windows of {settings.window} past and {settings.horizon} "
                f"future steps without a gap and needs {least}; past and future of at most {fits} "
                "steps together fit the training part"
            )
            raise UserError(_too_short(settings, found, path, reason))
        if origins < FEW[name]:
            notes.append(
                f"The {name} split has only {origins} windows, about "
                f"{max(1, _steps(blocks, name) // settings.horizon)} that do not overlap: "
                "intervals are rough, and small differences between models say little."
            )
    if row_count(splits["train"]) > MANY_WINDOWS:
        windows = row_count(splits["train"])
        notes.append(
            f"{windows:,} training windows: data.stride thins neighbours, which are alike."
        )
    about = _describe(settings, path, series, contract.frequency, blocks)
    notes = (*found.notes, *notes)
    columns = splits["train"], splits["validation"], splits["test"]
    limits = INCLUDED_LIMITS if path == INCLUDED else ()
    return Dataset(*columns, about, contract, series, blocks, notes=notes, limits=limits)


def folds(settings: DataSettings, count: int) -> list[DataSettings]:
    """Return the settings of each fold of a rolling origin: none trains on what comes later."""
    return [settings.model_copy(update={"folds": count, "test_fold": k}) for k in range(count)]


def _describe(
    settings: DataSettings, path: Path, series: list[Series], frequency: Frequency, blocks: Blocks
) -> str:
    start, end = min(one.stamps[0] for one in series), max(one.stamps[-1] for one in series)
    first, last = clock.format_times([int(start), int(end)], clock.EPOCH, frequency.zone)
    steps = sum(len(one.values) for one in series)
    blocks_before = (
        f"{len(blocks.validation)} validation blocks spread over the time before"
        if len(blocks.validation) > 1
        else "a validation block right before"
    )
    return (
        f"{settings.target} of {path.name}: {steps:,} rows in steps of {frequency.name}"
        + (f", {len(series)} series" if len(series) > 1 else "")
        + f", {first[:16].replace('T', ' ')} to {last[:16].replace('T', ' ')}. "
        f"Split by time: {blocks_before} the test, which is the last "
        f"{(blocks.test[1] - blocks.test[0]) / blocks.test[1]:.0%}; no training window touches "
        "them." + (f" {INCLUDED_SOURCE}" if path == INCLUDED else "")
    )


def _too_short(settings: DataSettings, found: SeriesSet, path: Path, reason: str) -> str:
    usual = found.frequency.usual_seasons
    hint = f" (usual for steps of {found.frequency.name}: {usual})" if usual else ""
    return (
        f"{path}: too short: {reason}; add rows, or lower data.window, data.seasons{hint} or "
        "data.horizon, or change data.test_share or data.validation_share"
    )


def _steps(blocks: Blocks, name: str) -> int:
    """Count the steps of a split."""
    held = {"validation": blocks.validation, "test": [blocks.test]}
    both = [*blocks.validation, blocks.test]
    steps = sum(end - first for first, end in held.get(name, both))
    return blocks.test[1] - steps if name == "train" else steps


def _fit_contract(
    settings: DataSettings, path: Path, found: SeriesSet, blocks: Blocks
) -> tuple[list[Series], Contract, list[str]]:
    """Fit the scalers to the steps outside validation and test; choose the calendar features.

    Returns the series that training can use, the contract and notes.
    """
    by_id = {series.id: series for series in found.series}
    fit = partial(_fit_scale, settings, path, blocks)
    fitted, notes = keep_usable(settings, list(by_id), lambda key: (key, fit(by_id[key])))
    scales, series = dict(fitted), [by_id[key] for key, _ in fitted]
    training = [one.covariates[_is_training(one, blocks)] for one in series]
    covariates, names = [], [*settings.covariates, *settings.past_covariates]
    for name, column in zip(names, np.concatenate(training).T, strict=True):
        center, spread = float(column.mean()), float(column.std())
        if not spread > 0:
            raise UserError(f"{path}: column {name!r}: is constant in the training part")
        past_only = name in settings.past_covariates
        covariates.append(Covariate(name=name, center=center, spread=spread, past_only=past_only))
    statics = _encode_statics(settings, path, series)
    frequency = found.frequency
    whole = max(one.stamps[-1] for one in series) - min(one.stamps[0] for one in series)
    years = whole * blocks.test[0] / blocks.test[1] / (365 * clock.DAY)
    step = frequency.seconds
    periods = {"day": step < clock.DAY, "week": step < 7 * clock.DAY, "year": years >= 2}
    if settings.special_days and step > clock.DAY:
        reason = f"is for steps of at most a day, these are {frequency.name}; set it to []"
        raise UserError(f"data.special_days: {reason}")
    contract = Contract(
        target=settings.target,
        frequency=frequency,
        seasons=settings.seasons,
        window=settings.window,
        horizon=settings.horizon,
        offsets=found.offsets,
        calendar=[period for period, useful in periods.items() if useful] or ["year"],
        covariates=covariates,
        series={
            key: scale.model_copy(update={"static": static})
            for (key, scale), static in zip(scales.items(), statics, strict=True)
        },
        special_days=tuple(settings.special_days),
    )
    masks = [contract.special_at(one.stamps[_is_training(one, blocks)]) for one in series]
    if settings.special_days and not any(mask.any() for mask in masks):
        notes.append("No special day (data.special_days) is in the training part: they do nothing.")
    return series, contract, notes


def _is_training(series: Series, blocks: Blocks) -> np.ndarray:
    """Return whether each step is observed and in neither validation nor test, bool (n,)."""
    mask = ~series.filled
    for first, end in [*blocks.validation, blocks.test]:
        mask &= (series.positions < first) | (series.positions >= end)
    return mask


def _fit_scale(settings: DataSettings, path: Path, blocks: Blocks, series: Series) -> Scale:
    """Fit a series' scale to its training steps. Raises UserError for a series without one."""
    season, mask = settings.seasons[-1], _is_training(series, blocks)
    values, both = series.values[mask], mask[season:] & mask[:-season]
    changes = np.abs(series.values[season:] - series.values[:-season])[both]
    if len(changes) < season:
        raise UserError(
            f"{path}: {series.place}: {mask.sum()} of these {len(mask)} rows are in the training "
            f"part, of which {len(changes)} have one {season} steps before; a whole season "
            f"({season}, data.seasons) is needed"
        )
    if not changes.max() > 1e-9 * max(np.abs(values).max(), 1e-30):
        raise UserError(
            f"{path}: {series.place}, column {settings.target!r}: the values never change from one "
            "season to the next in the training part; there is nothing to learn"
        )
    return Scale(center=float(values.mean()), unit=float(changes.mean()))


def _encode_statics(settings: DataSettings, path: Path, series: list[Series]) -> list[list[float]]:
    """Encode static covariates by series: numbers standardised, words one-hot."""
    encoded: list[list[float]] = [[] for _ in series]
    for place, name in enumerate(settings.static):
        column = [one.static[place] for one in series]
        values = sorted(set(column))
        if not len(values) > 1:
            raise UserError(f"{path}: column {name!r} (data.static): is the same in all series")
        if isinstance(values[0], str) and len(values) > MAX_CATEGORIES:
            reason = f"has {len(values)} categories, at most {MAX_CATEGORIES} can be used"
            raise UserError(f"{path}: column {name!r} (data.static): {reason}")
        numbers = np.array(column, float) if isinstance(values[0], float) else np.empty(0)
        for row, value in enumerate(column):
            if isinstance(value, str):
                encoded[row] += [float(value == other) for other in values]
            else:
                encoded[row].append(float((value - numbers.mean()) / numbers.std()))
    return encoded
