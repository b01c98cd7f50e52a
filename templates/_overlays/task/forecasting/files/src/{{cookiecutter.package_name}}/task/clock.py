"""Times as seconds since 1970, time zones, calendar features. The server imports it.

Times without UTC offsets are taken as they are, without daylight saving; times with offsets are
converted to UTC. With a time zone, times without offset are local to it, daylight saving included,
and so is the calendar.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

EPOCH = datetime(1970, 1, 1)
FIRST_YEAR, LAST_YEAR = 1800, 2299
DAY = 86_400
LONGEST_CHANGE = timedelta(days=3)  # between rows around a change of clocks
# number of channels of each calendar feature: sine and cosine of the harmonics of its period
CHANNELS = {"day": 4, "week": 6, "year": 4}


class BadTime(ValueError):
    """An invalid time at `position` of a sequence."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


def parse_times(texts: Sequence[str]) -> list[datetime]:
    """Parse ISO 8601 times with or without UTC offset (`2014-01-31T13:00`). Raises BadTime."""
    moments: list[datetime] = []
    try:
        for text in texts:
            moments.append(datetime.fromisoformat(text))
    except ValueError:
        text = texts[len(moments)]
        short = text if len(text) <= 40 else f"{text[:40]}…"
        raise BadTime(len(moments), f"{short!r} is not an ISO 8601 time") from None
    check_times(moments)
    return moments


def check_times(moments: Sequence[datetime]) -> None:
    """Raise BadTime for years out of range, and for times with and without UTC offset in one."""
    naive = bool(moments) and moments[0].tzinfo is None
    for position, moment in enumerate(moments):
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            raise BadTime(position, f"{moment} is outside the years {FIRST_YEAR} to {LAST_YEAR}")
        if (moment.tzinfo is None) != naive:
            kind = "a" if naive else "no"
            raise BadTime(position, f"{moment} has {kind} UTC offset, unlike the first time")


def to_seconds(moments: Sequence[datetime], zone: ZoneInfo | None) -> np.ndarray:
    """Convert to seconds since 1970, int64 (n,). Raises BadTime for times that the zone skips."""
    if moments and moments[0].tzinfo is not None:
        return np.array([int(moment.timestamp()) for moment in moments], np.int64)
    if zone is None:
        return np.array([int((moment - EPOCH).total_seconds()) for moment in moments], np.int64)
    stamps = np.empty(len(moments), np.int64)
    for position, moment in enumerate(moments):
        stamp = int(moment.replace(tzinfo=zone).timestamp())
        local = datetime.fromtimestamp(stamp, zone).replace(tzinfo=None)
        midnight = moment.hour == moment.minute == moment.second == 0
        if local != moment.replace(microsecond=0) and not midnight:  # a date means its first moment
            raise BadTime(position, f"{moment} does not exist in {zone.key} (daylight saving)")
        if position and stamp <= stamps[position - 1]:  # the second pass through a repeated hour
            stamp = int(moment.replace(tzinfo=zone, fold=1).timestamp())
        stamps[position] = stamp
    return stamps


def local_seconds(stamps: np.ndarray, zone: ZoneInfo | None) -> np.ndarray:
    """Convert seconds since 1970 to local time in the zone, int64 of any shape."""
    if zone is None:
        return stamps
    moments = [datetime.fromtimestamp(stamp, zone) for stamp in np.ravel(stamps).tolist()]
    offsets = [int((moment.utcoffset() or timedelta()).total_seconds()) for moment in moments]
    return stamps + np.array(offsets, np.int64).reshape(np.shape(stamps))


def utc_seconds(local: np.ndarray, zone: ZoneInfo | None) -> np.ndarray:
    """Convert local time in the zone, in seconds, to seconds since 1970, int64 like `local`."""
    if zone is None:
        return local
    moments = [EPOCH + timedelta(seconds=second) for second in np.ravel(local).tolist()]
    stamps = [int(moment.replace(tzinfo=zone).timestamp()) for moment in moments]
    return np.array(stamps, np.int64).reshape(np.shape(local))


def format_times(stamps: Sequence[int], like: datetime, zone: ZoneInfo | None) -> list[str]:
    """Write ISO 8601 times `like` that time: with its offset, in the zone, or without offset."""
    if like.tzinfo is None and zone is None:
        return [(EPOCH + timedelta(seconds=stamp)).isoformat() for stamp in stamps]
    zone_info = zone or like.tzinfo or UTC
    return [datetime.fromtimestamp(stamp, zone_info).isoformat() for stamp in stamps]


def calendar_features(local: np.ndarray, periods: Sequence[str]) -> np.ndarray:
    """Compute calendar channels, float32 (…, channel), of local times in seconds (…)."""
    columns: list[np.ndarray] = []
    for period in periods:
        if period == "day":
            phase = local % DAY / DAY
        elif period == "week":
            phase = (local // DAY + 3) % 7 / 7  # 1 January 1970 was a Thursday
        else:
            years = local.astype("datetime64[s]").astype("datetime64[Y]")
            start = years.astype("datetime64[s]").astype(np.int64)
            phase = (local - start) / (366 * DAY)
        for harmonic in range(1, CHANNELS[period] // 2 + 1):
            angle = 2 * np.pi * harmonic * phase
            columns += [np.sin(angle), np.cos(angle)]
    return np.stack(columns, axis=-1).astype(np.float32)


def span_name(span: int) -> str:
    """Write a span of seconds as `1 h`, `30 min` or `7 d`."""
    for unit, length in (("d", DAY), ("h", 3600), ("min", 60)):
        if span % length == 0:
            return f"{span // length} {unit}"
    return f"{span} s"
