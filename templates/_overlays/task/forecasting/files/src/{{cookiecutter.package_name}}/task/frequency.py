"""The steps of a series in time, as the calendar has them. The server imports it: NumPy only."""

from collections.abc import Sequence
from datetime import date
from functools import cached_property
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import BaseModel, ConfigDict

from .clock import DAY, local_seconds, span_name, utc_seconds

ALL_WEEK, WORK_WEEK = "1111111", "1111100"
MONTH = 2_629_746  # seconds, on average
LAST_DAY = 31  # of any month: its last
MIN_WEEKS = 3  # without a weekday, before it is taken for one on which nothing happens
# Usual seasons in steps, for messages.
USUAL_SEASONS = {
    600: [144, 1008],
    900: [96, 672],
    1800: [48, 336],
    3600: [24, 168],
    DAY: [7],
    7 * DAY: [52],
    MONTH: [12],
    3 * MONTH: [4],
    12 * MONTH: [1],
}


class Frequency(BaseModel):
    """Steps of seconds, days, chosen weekdays or months, in local time of a zone.

    `number` counts the steps since 1970, `after` goes on from a time. Times are seconds since
    1970, int64, and may have any shape.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Literal["second", "day", "month"]
    count: int = 1  # units in a step
    time: int = 0  # of the local day, in seconds (days and months)
    weekdays: str = ALL_WEEK  # Monday to Sunday: 1 for a day that is a step
    holidays: tuple[date, ...] = ()  # days that are no step
    day: int = 1  # of the month; LAST_DAY for its end
    rows: bool = False  # every row is a step, whatever its time; `after` then only guesses
    timezone: str | None = None

    @cached_property
    def zone(self) -> ZoneInfo | None:
        return ZoneInfo(self.timezone) if self.timezone else None

    @cached_property
    def seconds(self) -> int:
        """The usual length of a step."""
        return self.count * {"second": 1, "day": DAY, "month": MONTH}[self.unit]

    @property
    def some_days(self) -> bool:
        """Whether only some days are steps."""
        return self.unit == "day" and (self.weekdays != ALL_WEEK or bool(self.holidays))

    @property
    def name(self) -> str:
        """The step in words: `1 h`, `1 business day`, `3 months`."""
        if self.rows:
            return "1 row"
        if self.some_days:
            return "1 business day" if self.weekdays == WORK_WEEK else "1 open day"
        if self.unit == "month":
            count, unit = (
                (self.count // 12, "year") if self.count % 12 == 0 else (self.count, "month")
            )
            return f"{count} {unit}{'s' if count > 1 else ''}"
        return span_name(self.seconds)

    @property
    def usual_seasons(self) -> list[int] | None:
        """The seasons that data of this frequency usually has, in steps."""
        return [5] if self.weekdays == WORK_WEEK else USUAL_SEASONS.get(self.seconds)

    def number(self, stamps: np.ndarray) -> np.ndarray:
        """Count the steps from 1970 to times."""
        if self.unit == "second":
            return stamps // self.count
        days = local_seconds(stamps, self.zone) // DAY
        if self.unit == "month":
            return (
                days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) // self.count
            )
        if self.some_days:
            return np.busday_count("1970-01-01", days.astype("datetime64[D]"), busdaycal=self._open)
        return days // self.count

    def after(self, origin: int | np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Return the times that many steps after `origin`; both broadcast, and steps may be < 0."""
        if self.unit == "second":
            return origin + self.count * steps
        days = local_seconds(np.asarray(origin), self.zone) // DAY
        if self.unit == "month":
            months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
            months = months + self.count * steps
            first, following = (
                month.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
                for month in (months, months + 1)
            )
            moved = np.minimum(first + self.day - 1, following - 1)
        elif self.some_days:
            start = days.astype("datetime64[D]")
            moved = np.busday_offset(start, steps, roll="backward", busdaycal=self._open)
            moved = moved.astype(np.int64)
        else:
            moved = days + self.count * steps
        return utc_seconds(moved * DAY + self.time, self.zone)

    def irregular(self, stamps: np.ndarray) -> np.ndarray:
        """Return whether each time (n,) is not one step after the one before, bool (n - 1,)."""
        steps = np.diff(stamps)
        if self.rows:
            return steps <= 0
        if self.unit == "second":
            return steps != self.count
        return (np.diff(self.number(stamps)) != 1) | ~self.is_open(stamps)[1:]

    def is_open(self, stamps: np.ndarray) -> np.ndarray:
        """Return whether times are on days that are steps, bool."""
        if not self.some_days:
            return np.ones(np.shape(stamps), bool)
        days = (local_seconds(stamps, self.zone) // DAY).astype("datetime64[D]")
        return np.is_busday(days, busdaycal=self._open)

    @cached_property
    def _open(self) -> np.busdaycalendar:
        mask = [flag == "1" for flag in self.weekdays]
        return np.busdaycalendar(weekmask=mask, holidays=self.holidays)


def choose(
    setting: str, series: Sequence[np.ndarray], holidays: Sequence[date], timezone: str | None
) -> Frequency:
    """Choose the frequency for series of ascending times (n,), at least two in one of them.

    `setting` is a value of `data.frequency`. Raises ValueError for one that is none.
    """
    zone = ZoneInfo(timezone) if timezone else None
    steps = np.concatenate([np.diff(stamps) for stamps in series])
    stamps = np.unique(np.concatenate(series))
    local = local_seconds(stamps, zone)
    days = np.concatenate([np.diff(local_seconds(stamps, zone) // DAY) for stamps in series])
    time = _most_frequent(local % DAY)
    common = {"time": time, "timezone": timezone}
    if setting in ("auto", "rows"):
        same_time = (utc_seconds(local // DAY * DAY + time, zone) == stamps).all()
        if same_time and _most_frequent(steps) >= DAY - 3600:
            found = _infer(_most_frequent(days), local, common)
        else:
            found = Frequency(unit="second", count=_most_frequent(steps), timezone=timezone)
    else:
        found = parse(setting, common)
    if holidays:
        if found.unit != "day":
            raise ValueError(f"steps are {found.name}, but data.holidays is for days")
        found = found.model_copy(update={"holidays": tuple(sorted(holidays))})
    return found.model_copy(update={"rows": setting == "rows"})


def parse(setting: str, common: dict[str, Any]) -> Frequency:
    """Return the frequency of a setting such as `15min`, `D`, `B` or `ME`."""
    digits = setting[: len(setting) - len(setting.lstrip("0123456789"))]
    count, unit = int(digits or 1), setting[len(digits) :]
    if unit in ("s", "min", "h"):
        length = {"s": 1, "min": 60, "h": 3600}[unit]
        return Frequency(unit="second", count=count * length, timezone=common["timezone"])
    if unit in ("D", "W", "B"):
        weekdays = WORK_WEEK if unit == "B" else ALL_WEEK
        return Frequency(
            unit="day", count=count * (7 if unit == "W" else 1), weekdays=weekdays, **common
        )
    months = {"M": 1, "Q": 3, "Y": 12}[unit[0]]
    day = LAST_DAY if unit.endswith("E") else 1
    return Frequency(unit="month", count=count * months, day=day, **common)


def _infer(days: int, local: np.ndarray, common: dict[str, Any]) -> Frequency:
    """Infer a frequency of days or months from the usual step in days and all times (n,)."""
    dates = (local // DAY).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    in_month = (dates - months.astype("datetime64[D]")).astype(int) + 1
    following = (months + np.timedelta64(1, "M")).astype("datetime64[D]")
    last = (following - dates).astype(int) == 1
    day = int(in_month.max())
    if days >= 28 and ((in_month == day) | last).all():
        count = max(1, round(days * DAY / MONTH))
        return Frequency(unit="month", count=count, day=LAST_DAY if last.all() else day, **common)
    weekday = (local // DAY + 3) % 7  # 1 January 1970 was a Thursday
    some = "".join("1" if (weekday == number).any() else "0" for number in range(7))
    if days == 1 and np.ptp(local) >= MIN_WEEKS * 7 * DAY and some != ALL_WEEK:
        return Frequency(unit="day", weekdays=some, **common)
    return Frequency(unit="day", count=days, **common)


def _most_frequent(values: np.ndarray) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])
