"""Load and check the series, and split them by time.

The time before the test is cut by validation blocks that are spread over it. A window (its past
and its future) is trained on only if it touches no step of a validation block and none of the
test; so no value that a model is chosen or measured by was in training, neither as something to
hit nor as something to look at. Validation and test windows hit targets of their own block only;
their past may reach back into the training part, as it does in real use.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..config import UserError
from ..interfaces import Arrays, LabelledItem, Splits
from . import clock, table
from .contract import Contract, Covariate, Scale
from .settings import DataSettings

SHIPPED = Path(__file__).with_name("victoria_demand_2014.csv")
FEWEST_WINDOWS = 100  # to train on
FEWEST_ORIGINS = 72  # of validation and test: three blocks of the bootstrap


@dataclass(frozen=True)
class Series:
    """One series, complete and in order."""

    id: str
    start: int  # seconds
    values: np.ndarray  # (n,) in the target's units
    covariates: np.ndarray  # (n, name)


@dataclass(frozen=True)
class Blocks:
    """Steps [first, end) of the common grid whose values are kept from training."""

    validation: list[tuple[int, int]]
    test: tuple[int, int]


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits whose rows are windows, ordered by time but for those that joined from requests:

    - `history` float32 (n, window) and `known` float32 (n, window + horizon, channel), the inputs
    - `target` float32 (n, horizon), scaled like the history
    - `origin` int64 (n,): the last step of the past, in seconds; `series` int64 (n,): its number
    - `center`, `unit` float64 (n,): target × unit + center is in the target's own units
    """

    contract: Contract
    series: list[Series] = field(repr=False)
    blocks: Blocks

    def example(self) -> dict[str, Any]:
        """A request's item, made of the first test window."""
        return self.item(int(self.test["series"][0]), int(self.test["origin"][0]))

    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Requests, and what came after them, as windows; ValueError for unusable ones: a truth
        must tell of every step of the horizon."""
        contract, numbers = self.contract, {key: n for n, key in enumerate(self.contract.series)}
        items = [item for item, _ in pairs]
        inputs = contract.encode(items)
        keys = [next(iter(numbers)) if item.id is None else item.id for item in items]
        target = np.empty((len(pairs), contract.horizon), np.float32)
        for place, (key, (_, truth)) in enumerate(zip(keys, pairs, strict=True)):
            if len(truth.values) != contract.horizon:
                given = f"{len(truth.values)} are given of {contract.horizon}"
                raise ValueError(f"example {place}: values: {given} steps")
            target[place] = contract.believable(truth, key)
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
        """The past of a series up to `origin` (seconds) as a request's item."""
        contract, series = self.contract, self.series[number]
        end = (origin - series.start) // contract.step + 1
        first = end - contract.window
        stamps = [series.start + contract.step * row for row in range(first, end)]
        like = clock.EPOCH.replace(tzinfo=clock.UTC) if contract.offsets else clock.EPOCH
        item: dict[str, Any] = {
            "times": clock.texts(stamps, like, contract.zone),
            "values": series.values[first:end].tolist(),
        }
        if contract.covariates:
            ahead = series.covariates[first : end + contract.horizon]
            names = [covariate.name for covariate in contract.covariates]
            item["covariates"] = dict(zip(names, ahead.T.tolist(), strict=True))
        return item if len(self.series) == 1 else {**item, "id": series.id}


def load(settings: DataSettings) -> Dataset:
    """The data that the settings name; UserError in one line naming file, row and column."""
    path = settings.path or SHIPPED
    series, step, offsets = _read(settings, path)
    first = min(one.start for one in series)
    end = max((one.start - first) // step + len(one.values) for one in series)
    blocks = cut(settings, end)
    contract = _contract(settings, path, series, step, offsets, first, blocks)
    parts = {
        name: _windows(settings, contract, series, first, blocks, name)
        for name in ("train", "validation", "test")
    }
    _enough(settings, path, parts)
    about = (
        f"{settings.target} of {path.name}: {sum(len(one.values) for one in series):,} rows in "
        f"steps of {clock.name(step)}"
        + (f", {len(series)} series" if len(series) > 1 else "")
        + f". Split by time: {len(blocks.validation)} validation blocks spread over the time "
        f"before the test, the last {settings.test_share:.0%} are the test; no training window "
        "touches them."
    )
    if settings.path is None:
        about += " Data: Australian Energy Market Operator (AEMO)."
    return Dataset(**parts, about=about, contract=contract, series=series, blocks=blocks)


def cut(settings: DataSettings, count: int) -> Blocks:
    """Validation blocks of equal length in the middle of equal parts, and the test at the end."""
    test = count - round(settings.test_share * count)
    part = test / settings.validation_blocks
    length = settings.validation_share * count / settings.validation_blocks
    middles = [(number + 0.5) * part for number in range(settings.validation_blocks)]
    blocks = [(round(middle - length / 2), round(middle + length / 2)) for middle in middles]
    return Blocks(blocks, (test, count))


def _read(settings: DataSettings, path: Path) -> tuple[list[Series], int, bool]:
    """The file's series, their step in seconds, and whether the times have UTC offsets."""
    rows = table.read(path, settings.separator)
    texts = rows.column(settings.time, "data.time")
    values = np.array(rows.numbers(settings.target, "data.target"))
    columns = [rows.numbers(name, "data.covariates") for name in settings.covariates]
    covariates = np.array(columns).T.reshape(len(values), len(columns))
    places: dict[str, list[int]] = {}
    ids = rows.column(settings.id, "data.id") if settings.id else [""] * len(values)
    for place, key in enumerate(ids):
        if settings.id and not key:
            raise UserError(f"{path}: row {rows.lines[place]}, column {settings.id!r}: is empty")
        places.setdefault(key, []).append(place)
    zone = None if settings.timezone is None else clock.ZoneInfo(settings.timezone)
    stamps, offsets = _stamps(rows, settings, texts, list(places.values()), zone)
    steps = np.concatenate([np.diff(stamps[own]) for own in places.values()])
    if not len(steps):
        raise UserError(f"{path}: row {rows.lines[-1]}: one row per series is no series")
    found, counts = np.unique(np.abs(steps), return_counts=True)
    step = int(found[counts.argmax()])
    for own in places.values():
        _disorder(rows, settings, texts, stamps, own, step, offsets)
    series = [
        Series(key, int(stamps[own[0]]), values[own], covariates[own])
        for key, own in places.items()
    ]
    for one in series:
        if (one.start - series[0].start) % step:
            raise UserError(
                f"{path}: column {settings.id!r}: the series {one.id!r} is not on the same grid "
                f"of {clock.name(step)} as {series[0].id!r}"
            )
    return series, step, offsets


def _stamps(
    rows: table.Table,
    settings: DataSettings,
    texts: list[str],
    places: list[list[int]],
    zone: clock.ZoneInfo | None,
) -> tuple[np.ndarray, bool]:
    """Every row's time in seconds, and whether the times have UTC offsets."""
    stamps = np.empty(len(texts), np.int64)
    place = list(range(len(texts)))
    try:
        moments = clock.parse(texts)
        for place in places:
            stamps[place] = clock.seconds([moments[row] for row in place], zone)
    except clock.BadTime as error:
        line = rows.lines[place[error.position]]
        raise UserError(f"{rows.path}: row {line}, column {settings.time!r}: {error}") from None
    return stamps, moments[0].tzinfo is not None


def _disorder(
    rows: table.Table,
    settings: DataSettings,
    texts: list[str],
    stamps: np.ndarray,
    own: list[int],
    step: int,
    offsets: bool,
) -> None:
    """UserError at the first row of a series that is not one step after the row before it."""
    steps = np.diff(stamps[own])
    wrong = (steps != step) | (steps <= 0)
    if not wrong.any():
        return
    bad = int(np.argmax(wrong))
    row, before = own[bad + 1], own[bad]
    change, earlier = int(steps[bad]), rows.lines[before]
    changed = abs(change - step) in (1800, 3600) and not offsets and settings.timezone is None
    twice = change == 0 or (change < 0 and bool((stamps[own[: bad + 1]] == stamps[row]).any()))
    if twice:
        earlier = rows.lines[own[int(np.argmax(stamps[own] == stamps[row]))]]
        reason = f"{texts[row]} stands twice, first in row {earlier}"
        changed |= -change in (0, 1800, 3600) and not offsets and settings.timezone is None
    elif change < 0:
        reason = f"{texts[row]} is earlier than row {earlier} ({texts[before]}); sort by time"
    elif change % step == 0:
        reason = (
            f"{change // step - 1} rows of {clock.name(step)} are missing between row {earlier} "
            f"({texts[before]}) and {texts[row]}"
        )
    else:
        reason = (
            f"{texts[row]} is {clock.name(change)} after row {earlier}, steps are "
            f"{clock.name(step)}"
        )
    if change == 0 and settings.id is None:
        reason += "; if there are several series, name their column in data.id"
    if changed:
        reason += "; if this is daylight saving, set data.timezone or write times with UTC offsets"
    raise UserError(f"{rows.path}: row {rows.lines[row]}, column {settings.time!r}: {reason}")


def _contract(
    settings: DataSettings,
    path: Path,
    series: list[Series],
    step: int,
    offsets: bool,
    first: int,
    blocks: Blocks,
) -> Contract:
    """Scalers from the steps outside of validation and test, and how to see the rest."""
    season, scales = settings.seasons[-1], {}
    kept = [_training(blocks, (one.start - first) // step, len(one.values)) for one in series]
    for one, mask in zip(series, kept, strict=True):
        own = one.values[mask]
        both = mask[season:] & mask[:-season]
        changes = np.abs(one.values[season:] - one.values[:-season])[both]
        label = f" of the series {one.id!r}" if one.id else ""
        if not len(changes):
            raise UserError(
                f"{path}: row {len(one.values) + 1}: the {len(one.values)} rows{label} hold no two "
                f"training steps that are {season} apart (data.seasons)"
            )
        if not changes.max() > 1e-9 * max(np.abs(own).max(), 1e-30):
            raise UserError(
                f"{path}: column {settings.target!r}: the values{label} never change from one "
                f"season to the next in the training part; there is nothing to learn"
            )
        scales[one.id] = Scale(center=float(own.mean()), unit=float(changes.mean()))
    pooled = np.concatenate([one.covariates[mask] for one, mask in zip(series, kept, strict=True)])
    covariates = []
    for column, name in enumerate(settings.covariates):
        spread = float(pooled[:, column].std())
        if not spread > 0:
            raise UserError(f"{path}: column {name!r}: has one value only in the training part")
        center = float(pooled[:, column].mean())
        covariates.append(Covariate(name=name, center=center, spread=spread))
    years = step * blocks.test[0] / (365 * clock.DAY)
    parts = {"day": step < clock.DAY, "week": step < 7 * clock.DAY, "year": years >= 2}
    return Contract(
        target=settings.target,
        step=step,
        seasons=settings.seasons,
        window=settings.window,
        horizon=settings.horizon,
        offsets=offsets,
        timezone=settings.timezone,
        calendar=[part for part, useful in parts.items() if useful] or ["year"],
        covariates=covariates,
        series=scales,
    )


def _training(blocks: Blocks, start: int, count: int) -> np.ndarray:
    """Which steps [start, start + count) of the grid are free of validation and test."""
    free = np.ones(count, bool)
    for first, end in [*blocks.validation, blocks.test]:
        free[max(first - start, 0) : max(end - start, 0)] = False
    return free


def origins(
    settings: DataSettings, contract: Contract, blocks: Blocks, name: str
) -> Iterator[np.ndarray]:
    """The last steps of the pasts of a split's windows, for each stretch of the grid."""
    window, horizon = contract.window, contract.horizon
    if name == "train":
        ends = [0, *(end for _, end in blocks.validation)]
        starts = [*(first for first, _ in blocks.validation), blocks.test[0]]
        for end, start in zip(ends, starts, strict=True):
            yield np.arange(end + window - 1, start - horizon, settings.stride)
    else:
        # Neighbouring windows tell much the same: eight to a horizon are enough to measure with.
        apart = max(1, horizon // 8)
        for first, end in blocks.validation if name == "validation" else [blocks.test]:
            yield np.arange(first - 1, end - horizon, apart)


def _windows(
    settings: DataSettings,
    contract: Contract,
    series: list[Series],
    first: int,
    blocks: Blocks,
    name: str,
) -> Arrays:
    """A split's arrays, ordered by time."""
    window, horizon = contract.window, contract.horizon
    wanted = np.concatenate(list(origins(settings, contract, blocks, name)))
    parts: list[Arrays] = []
    for number, one in enumerate(series):
        start, count = (one.start - first) // contract.step, len(one.values)
        rows = wanted - start
        rows = rows[(rows >= window - 1) & (rows < count - horizon)]
        if not len(rows):
            continue
        values = contract.scaled(one.values, one.id)
        stamps = one.start + contract.step * np.arange(count)
        known = contract.known(stamps, one.covariates)
        scale = contract.series[one.id]
        parts.append(
            {
                "history": sliding_window_view(values, window)[rows - window + 1],
                "known": sliding_window_view(known, window + horizon, axis=0)[
                    rows - window + 1
                ].transpose(0, 2, 1),
                "target": sliding_window_view(values, horizon)[rows + 1],
                "origin": stamps[rows],
                "series": np.full(len(rows), number),
                "center": np.full(len(rows), scale.center),
                "unit": np.full(len(rows), scale.unit),
            }
        )
    if not parts:
        return {"origin": np.empty(0, np.int64)}
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(whole["origin"], kind="stable")
    return {key: np.ascontiguousarray(array[order]) for key, array in whole.items()}


def _enough(settings: DataSettings, path: Path, parts: dict[str, Arrays]) -> None:
    for name, fewest in (
        ("train", FEWEST_WINDOWS),
        ("validation", FEWEST_ORIGINS),
        ("test", FEWEST_ORIGINS),
    ):
        found = len(np.unique(parts[name]["origin"]))
        if found < fewest:
            raise UserError(
                f"{path}: too short: {name} gets {found} windows of {settings.window} past "
                f"and {settings.horizon} future steps and needs {fewest}; give more rows, or lower "
                "data.window, data.seasons, data.horizon or data.validation_blocks, or change "
                "the shares"
            )
