"""Parse a column of times: ISO 8601, another format, quarters, or numbers since 1970."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product

from .table_settings import EPOCHS, shown

SETTING = "data.table.times"
START = datetime(1970, 1, 1, tzinfo=UTC)
# `auto` takes numbers for epochs if they are in these years: the units differ by a factor of 1000,
# so no number fits two of them.
EPOCH_YEARS = range(1980, 2101)
NUMBER = re.compile(r"\d+(\.\d*)?")
ISO, QUARTERS = "ISO 8601", "quarters"
QUARTER = re.compile(r"(?P<year>\d{4})[- ]?[Qq](?P<quarter>[1-4])|[Qq]([1-4])[- ]?(\d{4})")
DATES = [
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%Y.%m.%d"),
    *("%Y-%m-%d", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y"),
    *("%Y%m", "%m/%Y", "%m.%Y", "%m-%Y", "%b %Y", "%B %Y", "%b-%Y"),
]
CLOCKS = ["", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p"]
OTHER_FORMS = [*EPOCHS, QUARTERS, *(date + clock for date, clock in product(DATES, CLOCKS))]


class UnreadableTime(ValueError):
    """An invalid time at `position` of a sequence."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


def parse_times(texts: Sequence[str], form: str) -> tuple[list[datetime], str | None]:
    """Parse times; return them, and a sentence if how to read them was guessed.

    `form` is `auto`, a unit of epochs or a format as of strptime. Epochs are returned in UTC.
    Raises UnreadableTime.
    """
    unique, note = dict.fromkeys(texts), None
    if form == "auto":
        form, parsed = _guess(texts, list(unique))
        if form != ISO:
            kind = f"{form} since 1970" if form in EPOCHS else form
            note = f"times were read as {kind}, as nothing else fits all rows ({SETTING})"
    else:
        parsed = _parse_all(unique, form)
        if len(parsed) < len(unique):
            position = next(place for place, text in enumerate(texts) if text not in parsed)
            raise UnreadableTime(
                position, f"{shown(texts[position])} does not fit {form!r} ({SETTING})"
            )
    return [parsed[text] for text in texts], note


def _guess(texts: Sequence[str], unique: list[str]) -> tuple[str, dict[str, datetime]]:
    """Return the only form that fits all texts, and the times."""
    attempts = {ISO: _parse_all(unique, ISO)}
    if len(attempts[ISO]) < len(unique):
        attempts |= {form: _parse_all(unique, form, EPOCH_YEARS) for form in OTHER_FORMS}
    fitting = {form: times for form, times in attempts.items() if len(times) == len(unique)}
    if not fitting:
        form, parsed = max(attempts.items(), key=lambda attempt: len(attempt[1]))
        text = unique[len(parsed)]
        reason = f"{shown(text)} is not {'an' if form == ISO else 'a'} {form} time"
        if parsed and form != ISO:
            reason = f"{shown(text)} does not fit {form!r} as the rows before"
        raise UnreadableTime(
            texts.index(text), f"{reason}; {SETTING} sets another format, or an epoch"
        )
    form, parsed = next(iter(fitting.items()))
    for other, times in fitting.items():
        for text in unique:
            if times[text] != parsed[text]:
                reason = f"{shown(text)} may be {form!r} or {other!r}; set {SETTING}"
                raise UnreadableTime(texts.index(text), reason)
    return form, parsed


def _parse_all(
    texts: Sequence[str] | dict[str, None], form: str, epoch_years: range | None = None
) -> dict[str, datetime]:
    """Parse texts up to the first that does not fit."""
    parsed: dict[str, datetime] = {}
    for text in texts:
        try:
            moment = _parse(text, form)
        except (ValueError, OverflowError):
            break
        if epoch_years and form in EPOCHS and moment.year not in epoch_years:
            break
        parsed[text] = moment
    return parsed


def _parse(text: str, form: str) -> datetime:
    """Parse one time; ValueError or OverflowError if it does not fit."""
    if form == ISO:
        return _parse_iso(text)
    if form in EPOCHS:
        if not NUMBER.fullmatch(text):
            raise ValueError("not a number")
        return START + timedelta(microseconds=int(Decimal(text) * 1_000_000 / EPOCHS[form]))
    if form == QUARTERS:
        match = QUARTER.fullmatch(text)
        if match is None:
            raise ValueError("not a quarter")
        year, quarter = match["year"] or match[4], match["quarter"] or match[3]
        return datetime(int(year), 3 * int(quarter) - 2, 1)
    return datetime.strptime(text, form)


def _parse_iso(text: str) -> datetime:
    """Parse ISO 8601, years and months included.

    Of numbers only years and dates: `fromisoformat` takes milliseconds since 1970 for years, too.
    """
    if text.isdigit() and len(text) == 4:
        return datetime(int(text), 1, 1)
    if NUMBER.fullmatch(text) and len(text) != 8:
        raise ValueError("a number")
    return datetime.fromisoformat(f"{text}-01" if len(text) == 7 and text[4] == "-" else text)
