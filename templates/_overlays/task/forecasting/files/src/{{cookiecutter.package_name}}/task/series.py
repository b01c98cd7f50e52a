"""Read series from a table: sort them, find their frequency, put them on one grid.

Whatever is changed becomes a note for the report. What is refused names the row and the setting
that helps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from ..config import UserError
from . import clock
from .frequency import Frequency, choose
from .grid import Rows, Series, build_series, clock_change
from .settings import DataSettings
from .table import Table, read_table


@dataclass(frozen=True)
class SeriesSet:
    """The usable series of a file."""

    series: list[Series]
    frequency: Frequency
    offsets: bool  # whether times have UTC offsets
    notes: list[str]


def read_series(settings: DataSettings, path: Path) -> SeriesSet:
    """Read the usable series of a file. Raises UserError."""
    # 1. Read the columns; group the rows by series, in order of time.
    table = read_table(path, settings.table)
    rows = _read_rows(settings, table)
    groups = _group_rows(settings, table)
    late = 0
    for key, places in groups.items():
        groups[key], moved = _in_order(settings, rows, places)
        late += moved
    # 2. Find the frequency.
    try:
        of_series = [rows.stamps[places] for places in groups.values()]
        if max(map(len, of_series)) < 2:
            raise table.error(len(table) - 1, None, "one row per series is not a time series")
        _refuse_duplicates(settings, rows, groups)
        frequency = choose(settings.frequency, of_series, settings.holidays, settings.timezone)
    except ValueError as error:
        raise UserError(f"{path}: column {settings.time!r}: {error}") from None
    # 3. Put each series on the grid and fill its gaps.
    first = min(stamps[0] for stamps in of_series)
    ranks = np.unique(rows.stamps) if frequency.rows else None
    build = partial(build_series, settings, rows, frequency, first, ranks)
    series, notes = keep_usable(settings, list(groups), lambda key: build(key, groups[key]))
    # 4. Tell what was changed.
    if late:
        notes.insert(
            0, f"{late:,} of {len(table):,} rows were not in order of time; all were sorted."
        )
    notes += _describe_changes(settings, frequency, series)
    statics = _read_statics(settings, table, groups)
    series = [
        replace(one, static=[column[one.id] for column in statics.values()]) for one in series
    ]
    offsets = rows.moments[0].tzinfo is not None
    return SeriesSet(series, frequency, offsets, [*table.notes, *notes])


def keep_usable(
    settings: DataSettings, keys: Sequence[str], build: Callable[[str], Any]
) -> tuple[list[Any], list[str]]:
    """Call `build` for each key; return what it made and notes on the series that it refused.

    Raises its UserError unless `data.unusable` says to skip such series.
    """
    made, skipped = [], []
    for key in keys:
        try:
            made.append(build(key))
        except UserError as error:
            if settings.unusable == "refuse" or len(keys) == 1:
                hint = "; data.unusable=skip leaves such series out" if len(keys) > 1 else ""
                raise UserError(f"{error}{hint}") from None
            skipped.append(str(error))
    if not made:
        raise UserError(f"no series is usable; the first: {skipped[0]}")
    notes = [f"{len(skipped):,} series left out (data.unusable=skip): {'; '.join(skipped[:5])}"]
    return made, [notes[0] + ("; …" if len(skipped) > 5 else ".")] if skipped else []


def _read_rows(settings: DataSettings, table: Table) -> Rows:
    moments = table.times(settings.time, "data.time")
    values = table.numbers(settings.target, "data.target", empty_as_nan=True)
    names = {
        "data.covariates": settings.covariates,
        "data.past_covariates": settings.past_covariates,
    }
    columns = [
        table.numbers(name, setting, empty_as_nan=True)
        for setting, columns in names.items()
        for name in columns
    ]
    covariates = np.array(columns).T.reshape(len(values), len(columns))
    try:
        clock.check_times(moments)
    except clock.BadTime as error:
        raise table.error(error.position, settings.time, str(error)) from None
    return Rows(table, moments, np.empty(len(moments), np.int64), values, covariates)


def _group_rows(settings: DataSettings, table: Table) -> dict[str, np.ndarray]:
    """Return the places of each series' rows."""
    if settings.id is None:
        return {"": np.arange(len(table))}
    groups: dict[str, list[int]] = {}
    for place, key in enumerate(table.texts(settings.id, "data.id")):
        if not key.strip():
            raise table.error(place, settings.id, "is empty, must name the series")
        groups.setdefault(key.strip(), []).append(place)
    return {key: np.array(places) for key, places in groups.items()}


def _in_order(settings: DataSettings, rows: Rows, places: np.ndarray) -> tuple[np.ndarray, int]:
    """Fill in a series' `stamps`; return its places in order of time and how many were not."""
    moments = [rows.moments[place] for place in places]
    late = sum(moment < before for before, moment in pairwise(moments))
    if moments[0] > moments[-1]:  # newest first: backwards, so that a doubled hour resolves
        places, moments = places[::-1], moments[::-1]
    zone = None if settings.timezone is None else ZoneInfo(settings.timezone)
    try:
        rows.stamps[places] = clock.to_seconds(moments, zone)
    except clock.BadTime as error:
        place = int(places[error.position])
        raise rows.table.error(place, settings.time, str(error)) from None
    order = np.argsort(rows.stamps[places], kind="stable")
    still = (np.diff(rows.stamps[places]) < 0).any() or late
    return places[order], late if still else 0


def _refuse_duplicates(settings: DataSettings, rows: Rows, groups: dict[str, np.ndarray]) -> None:
    for places in groups.values():
        same = np.flatnonzero(np.diff(rows.stamps[places]) == 0)
        if len(same):
            one, other = sorted(places[same[0] : same[0] + 2].tolist())
            text = rows.table.texts(settings.time, "data.time")[other]
            reason = f"{text} is a duplicate of row {rows.table.row(one)}"
            if settings.id is None:
                reason += "; if there are several series, name their column in data.id"
            reason += clock_change(settings, rows, one, other)
            raise rows.table.error(other, settings.time, reason)


def _describe_changes(
    settings: DataSettings, frequency: Frequency, series: list[Series]
) -> list[str]:
    notes = []
    if count := sum(int(one.filled.sum()) for one in series):
        steps = sum(len(one.values) for one in series)
        notes.append(
            f"{count:,} of {steps:,} steps had no value and were filled (data.gaps={settings.gaps})"
            "; no forecast starts on one or is measured on one."
        )
    if frequency.rows:
        notes.append(
            "Every row is a step (data.frequency=rows); the times of forecasts are a guess: steps "
            f"of {frequency.model_copy(update={'rows': False}).name} after the last row."
        )
    usual = frequency.usual_seasons
    if settings.seasons == DataSettings().seasons and usual not in (None, settings.seasons):
        notes.append(
            f"data.seasons={settings.seasons} are steps of {frequency.name}, whose usual seasons "
            f"are data.seasons={usual}."
        )
    return notes


def _read_statics(
    settings: DataSettings, table: Table, groups: dict[str, np.ndarray]
) -> dict[str, dict[str, float] | dict[str, str]]:
    """Return each static column's value by series: numbers, or words if one is no number."""
    statics: dict[str, dict[str, float] | dict[str, str]] = {}
    for name in settings.static:
        texts = np.array(table.texts(name, "data.static"))
        for key, places in groups.items():
            other = texts[places] != texts[places[0]]
            if other.any() or not texts[places[0]]:
                place = int(places[other.argmax()])
                reason = f"is {texts[place]!r}, must be the same in every row of the series {key!r}"
                raise table.error(place, name, reason)
        try:
            numbers = table.numbers(name, "data.static")
            statics[name] = {key: float(numbers[places[0]]) for key, places in groups.items()}
        except UserError:
            statics[name] = {key: str(texts[places[0]]) for key, places in groups.items()}
    return statics
