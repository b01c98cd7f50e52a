"""Put a series on its grid of steps: refuse or fill its gaps, refuse rows that are off the grid."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np

from ..config import UserError
from . import clock
from .frequency import Frequency
from .settings import DataSettings
from .table import Table

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

    def until(self, end: int) -> "Series":
        """Leave the steps from position `end` of the grid on out."""
        kept = int(np.searchsorted(self.positions, end))
        columns = ("stamps", "positions", "values", "covariates", "filled")
        return replace(self, **{name: getattr(self, name)[:kept] for name in columns})

    def find(self, stamps: np.ndarray) -> np.ndarray:
        """Return the places of times (n,) in the series, -1 for those that are not in it."""
        places = np.searchsorted(self.stamps, stamps)
        inside = np.minimum(places, len(self.stamps) - 1)
        return np.where(self.stamps[inside] == stamps, inside, -1)


@dataclass(frozen=True)
class Rows:
    """The columns of a file; `stamps` are seconds."""

    table: Table
    moments: Sequence[datetime]
    stamps: np.ndarray
    values: np.ndarray
    covariates: np.ndarray


def build_series(
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
        reason = (
            f"the gap of {gap} steps after this row is longer than "
            f"data.max_gap={settings.max_gap}; data.max_gap={gap} fills it, too"
        )
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
    reason += clock_change(settings, rows, before, int(places[bad]))
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
    reason += clock_change(settings, rows, before, row) + help_
    if frequency.unit == "day":
        reason += "; data.holidays names days off"
    if frequency.unit == "day" or len(gaps) > MANY_GAPS:
        reason += "; data.frequency=rows takes every row as a step"
    raise table.error(row, settings.time, reason)


def clock_change(settings: DataSettings, rows: Rows, before: int, row: int) -> str:
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
