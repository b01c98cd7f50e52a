"""Times as seconds on a regular grid, time zones, and the calendar. No torch: the server uses it.

A series keeps time in one of three ways. Without UTC offsets its times are taken as they stand
(a clock that is never changed). With offsets they are turned into UTC. With a time zone, times
without offset are that zone's, daylight saving included, and the calendar is that zone's too.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

EPOCH = datetime(1970, 1, 1)
FIRST_YEAR, LAST_YEAR = 1800, 2299
DAY = 86_400
# channels of each part of the calendar: harmonics of the day, of the weekday and of the year
CHANNELS = {"day": 4, "week": 6, "year": 4}


class BadTime(ValueError):
    """The time at `position` of a sequence cannot be used."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


def parse(texts: Sequence[str]) -> list[datetime]:
    """ISO 8601 times, `2014-01-31T13:00` with or without UTC offset. Raises BadTime."""
    moments: list[datetime] = []
    try:
        for text in texts:
            moments.append(datetime.fromisoformat(text))
    except ValueError:
        text = texts[len(moments)]
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise BadTime(len(moments), f"{shown!r} is not an ISO 8601 time") from None
    bare = bool(moments) and moments[0].tzinfo is None
    for position, moment in enumerate(moments):
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            reason = f"{moment} is outside of the years {FIRST_YEAR} to {LAST_YEAR}"
            raise BadTime(position, reason)
        if (moment.tzinfo is None) != bare:
            kind = "a" if bare else "no"
            raise BadTime(position, f"{moment} has {kind} UTC offset, unlike the first time")
    return moments


def seconds(moments: Sequence[datetime], zone: ZoneInfo | None) -> np.ndarray:
    """Seconds since 1970, int64 (n,). Raises BadTime for what the zone's clocks never showed."""
    if moments and moments[0].tzinfo is not None:
        return np.array([int(moment.timestamp()) for moment in moments], np.int64)
    if zone is None:
        return np.array([int((moment - EPOCH).total_seconds()) for moment in moments], np.int64)
    found = np.empty(len(moments), np.int64)
    for position, moment in enumerate(moments):
        stamp = int(moment.replace(tzinfo=zone).timestamp())
        if datetime.fromtimestamp(stamp, zone).replace(tzinfo=None) != moment.replace(
            microsecond=0
        ):
            raise BadTime(position, f"{moment} was skipped by the clocks of {zone.key}")
        if position and stamp <= found[position - 1]:  # the hour that the clocks show twice
            stamp = int(moment.replace(tzinfo=zone, fold=1).timestamp())
        found[position] = stamp
    return found


def wall(stamps: np.ndarray, zone: ZoneInfo | None) -> np.ndarray:
    """What the clocks on the wall show, as seconds since 1970, int64 (n,)."""
    if zone is None:
        return stamps
    offsets = [datetime.fromtimestamp(stamp, zone).utcoffset() for stamp in stamps.tolist()]
    return stamps + np.array([int((offset or timedelta()).total_seconds()) for offset in offsets])


def texts(stamps: Sequence[int], like: datetime, zone: ZoneInfo | None) -> list[str]:
    """ISO 8601 times written `like` that time: with its UTC offset, in the zone, or bare."""
    if like.tzinfo is None and zone is None:
        return [(EPOCH + timedelta(seconds=stamp)).isoformat() for stamp in stamps]
    found = [datetime.fromtimestamp(stamp, zone or like.tzinfo or UTC) for stamp in stamps]
    return [moment.isoformat() for moment in found]


def calendar(shown: np.ndarray, parts: Sequence[str]) -> np.ndarray:
    """The calendar's channels, float32 (n, channel), of what the clocks show (seconds, (n,))."""
    columns: list[np.ndarray] = []
    for part in parts:
        if part == "day":
            phase = shown % DAY / DAY
        elif part == "week":
            phase = (shown // DAY + 3) % 7 / 7  # the first of January 1970 was a Thursday
        else:
            years = shown.astype("datetime64[s]").astype("datetime64[Y]")
            start = years.astype("datetime64[s]").astype(np.int64)
            phase = (shown - start) / (366 * DAY)
        for harmonic in range(1, CHANNELS[part] // 2 + 1):
            angle = 2 * np.pi * harmonic * phase
            columns += [np.sin(angle), np.cos(angle)]
    return np.stack(columns, axis=1).astype(np.float32)


def name(span: int) -> str:
    """A span of seconds in words: `1 h`, `30 min`, `7 d`."""
    for unit, length in (("d", DAY), ("h", 3600), ("min", 60)):
        if span % length == 0:
            return f"{span // length} {unit}"
    return f"{span} s"
