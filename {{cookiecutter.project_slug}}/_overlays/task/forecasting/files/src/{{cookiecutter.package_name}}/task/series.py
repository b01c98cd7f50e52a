"""Read series from a table: sort them, find their frequency, fill or refuse gaps.

Whatever is changed becomes a note for the report. What is refused names the row and the setting
that helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from ..config import UserError
from . import clock
from .frequency import Frequency, choose
from .settings import DataSettings
from .table import Table, read_table

# Zones whose changes of clocks, at local times without zone, look like missing or doubled hours.
CHANGING_ZONES = (
    "Europe/London",
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "Australia/Sydney",
    "Pacific/Auckland",
)
MANY_GAPS = 10  # more of them are hardly faults: the series pauses, at nights or holidays


@dataclass(frozen=True)
class Series:
    """One series, complete and in order."""

    id: str
    place: str  # its rows in the file, for messages
    stamps: np.ndarray = field(repr=False)  # (n,), seconds, ascending
    positions: np.ndarray = field(repr=False)  # (n,), steps on the grid that all series share
    values: np.ndarray = field(repr=False)  # (n,), in the target's units
    covariates: np.ndarray = field(repr=False)  # (n, name), those known ahead first
    filled: np.ndarray = field(repr=False)  # (n,), whether a value of this step was filled
    static: list[float] | list[str] = field(default_factory=list)

    @property
    def start(self) -> int:
        return int(self.stamps[0])

    def find(self, stamps: np.ndarray) -> np.ndarray:
        """Return the places of times (n,) in the series, -1 for those that are not in it."""
        places = np.searchsorted(self.stamps, stamps)
        inside = np.minimum(places, len(self.stamps) - 1)
        return np.where(self.stamps[inside] == stamps, inside, -1)


@dataclass(frozen=True)
class SeriesSet:
    """The usable series of a file."""

    series: list[Series]
    frequency: Frequency
    offsets: bool  # whether times have UTC offsets
    notes: list[str]


@dataclass(frozen=True)
class Rows:
    """The columns of a file; `stamps` are seconds."""

    table: Table
    moments: Sequence[datetime]
    stamps: np.ndarray
    values: np.ndarray
    covariates: np.ndarray


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
    build = partial(_build_series, settings, rows, frequency, first, ranks)
    series, notes = keep_usable(settings, groups, lambda key: build(key, groups[key]))
    # 4. Tell what was changed.
    if late:
        notes.insert(0, f"{late:,} rows were not in order of time and were sorted.")
    notes += _describe_changes(settings, frequency, series)
    statics = _read_statics(settings, table, groups)
    series = [
        Series(**{**vars(one), "static": [column[one.id] for column in statics.values()]})
        for one in series
    ]
    offsets = rows.moments[0].tzinfo is not None
    return SeriesSet(series, frequency, offsets, [*table.notes, *notes])


def keep_usable(settings: DataSettings, keys, build) -> tuple[list, list[str]]:
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
            reason += _clock_change(settings, rows, one, other)
            raise rows.table.error(other, settings.time, reason)


def _build_series(
    settings: DataSettings,
    rows: Rows,
    frequency: Frequency,
    first: int,
    ranks: np.ndarray | None,
    key: str,
    places: np.ndarray,
) -> Series:
    """Put a series on the grid that starts at `first`, or of `ranks`; fill or refuse its gaps."""
    stamps, table = rows.stamps[places], rows.table
    lines = [table.row(int(place)) for place in (places.min(), places.max())]
    label = f"rows {lines[0]} to {lines[1]}" + (f", series {key!r}" if settings.id else "")
    columns = np.column_stack([rows.values[places], rows.covariates[places]])
    if ranks is not None:
        positions, own = np.searchsorted(ranks, stamps), np.arange(len(stamps))
    else:
        own = frequency.number(stamps) - frequency.number(stamps[:1])
        _refuse_off_grid(settings, rows, frequency, places, own)
        start = int((frequency.number(stamps[:1]) - frequency.number(np.array([first])))[0])
        if frequency.unit == "second" and first + frequency.count * start != stamps[0]:
            raise table.error(
                int(places[0]),
                settings.time,
                f"the series {key!r} is not on the same grid of {frequency.name} as the others",
            )
        positions = start + np.arange(own[-1] + 1)
    whole = np.full((int(own[-1]) + 1, columns.shape[1]), np.nan)
    whole[own] = columns
    if settings.gaps == "refuse":
        _refuse_gaps(settings, rows, frequency, places, own)
    kept = np.flatnonzero(~np.isnan(whole[:, 0]))
    if not len(kept):
        raise UserError(f"{table.path}: {label}: column {settings.target!r} is empty")
    inside = slice(kept[0], kept[-1] + 1)  # values before and after are never made up
    whole, positions = whole[inside], positions[inside]
    filled: np.ndarray = np.any(np.isnan(whole), axis=1)
    gap, end = _longest_run(filled)
    if gap > settings.max_gap:
        before = max(int(np.searchsorted(own, end - gap + kept[0])) - 1, 0)
        reason = f"the gap of {gap} steps after this row is longer than data.max_gap"
        raise table.error(int(places[before]), settings.time, reason)
    for column in whole.T:
        _fill(column, settings.seasons[-1] if settings.gaps == "seasonal" else 0)
    on_grid = stamps if frequency.rows else frequency.after(stamps[0], np.arange(own[-1] + 1))
    return Series(key, label, on_grid[inside], positions, whole[:, 0], whole[:, 1:], filled)


def _refuse_off_grid(
    settings: DataSettings, rows: Rows, frequency: Frequency, places: np.ndarray, own: np.ndarray
) -> None:
    """Raise UserError at the first row that is not on the series' grid, or twice on a step."""
    stamps = rows.stamps[places]
    off = ~frequency.is_open(stamps)
    if frequency.unit == "second":
        off |= frequency.after(stamps[0], own) != stamps
    off[1:] |= np.diff(own) == 0
    if not off.any():
        return
    bad = int(off.argmax())
    text = rows.table.texts(settings.time, "data.time")[places[bad]]
    if not frequency.is_open(stamps)[bad]:
        reason = f"{text} is no step of {frequency.name} (data.frequency, data.holidays)"
        raise rows.table.error(int(places[bad]), settings.time, reason)
    span, before = clock.span_name(int(stamps[bad] - stamps[bad - 1])), int(places[bad - 1])
    reason = f"{text} is {span} after row {rows.table.row(before)}, steps are {frequency.name}"
    reason += _clock_change(settings, rows, before, int(places[bad]))
    reason += "; data.frequency says otherwise: rows takes every row as a step"
    raise rows.table.error(int(places[bad]), settings.time, reason)


def _refuse_gaps(
    settings: DataSettings, rows: Rows, frequency: Frequency, places: np.ndarray, own: np.ndarray
) -> None:
    """Raise UserError at a series' first empty cell or missing row."""
    help_ = f"; data.gaps=interpolate or seasonal fills up to data.max_gap={settings.max_gap} steps"
    table, names = rows.table, [settings.target, *settings.covariates, *settings.past_covariates]
    for name, column in zip(names, [rows.values, *rows.covariates.T], strict=True):
        empty = np.isnan(column[places])
        if empty.any():
            raise table.error(int(places[empty.argmax()]), name, f"has no value{help_}")
    gaps = np.flatnonzero(np.diff(own) > 1)
    if not len(gaps):
        return
    bad = int(gaps[0])
    before, row = int(places[bad]), int(places[bad + 1])
    texts = table.texts(settings.time, "data.time")
    reason = (
        f"{own[bad + 1] - own[bad] - 1} rows of {frequency.name} are missing between row "
        f"{table.row(before)} ({texts[before]}) and {texts[row]}"
    )
    if len(gaps) > 1:
        reason += f", the first of {len(gaps):,} gaps"
    reason += _clock_change(settings, rows, before, row) + help_
    if frequency.unit == "day":
        reason += "; data.holidays names days off"
    if frequency.unit == "day" or len(gaps) > MANY_GAPS:
        reason += "; data.frequency=rows takes every row as a step"
    raise table.error(row, settings.time, reason)


def _clock_change(settings: DataSettings, rows: Rows, before: int, row: int) -> str:
    """Return a hint if clocks may have changed between two rows, else nothing."""
    if settings.timezone is not None:
        return ""
    early, late = sorted([rows.moments[before], rows.moments[row]])
    if early.tzinfo is not None:
        changed = early.utcoffset() != late.utcoffset()
    elif abs(late - early) > clock.LONGEST_CHANGE:
        changed = False
    else:
        zones = [ZoneInfo(name) for name in CHANGING_ZONES]
        changed = any(
            early.replace(tzinfo=zone).utcoffset() != late.replace(tzinfo=zone, fold=1).utcoffset()
            for zone in zones
        )
    hint = "; if this is daylight saving, set data.timezone or write times with UTC offsets"
    return hint if changed else ""


def _fill(column: np.ndarray, season: int) -> None:
    """Fill NaN in place: from one season before, else linearly; season 0 is none.

    So no value is made of later ones than the next that is there.
    """
    for place in np.flatnonzero(np.isnan(column)).tolist() if season else ():
        if place >= season:
            column[place] = column[place - season]
    empty = np.isnan(column)
    if empty.any() and not empty.all():
        steps = np.arange(len(column))
        column[empty] = np.interp(steps[empty], steps[~empty], column[~empty])


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Return the length and the end of the longest run of flags (n,)."""
    edges = np.diff(np.concatenate([[False], flags, [False]]).astype(int))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        return 0, 0
    longest = int((ends - starts).argmax())
    return int(ends[longest] - starts[longest]), int(ends[longest])


def _describe_changes(
    settings: DataSettings, frequency: Frequency, series: list[Series]
) -> list[str]:
    notes = []
    if count := sum(int(one.filled.sum()) for one in series):
        gaps = sum(int((np.diff(one.filled.astype(int)) == 1).sum()) for one in series)
        notes.append(
            f"{count:,} steps without a value, in {gaps:,} gaps, were filled "
            f"(data.gaps={settings.gaps}); no forecast starts on one or is measured on one."
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
