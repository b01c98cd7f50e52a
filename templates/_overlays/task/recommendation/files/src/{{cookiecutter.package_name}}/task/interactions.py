"""Read interactions (user, item, and time if known) from tables and from MovieLens' files.

Columns are arrays throughout: 20 million rows are common, and Python objects for each are not.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import NamedTuple, Self

import numpy as np

from ..config import UserError
from .contract import WHOLE_ID
from .settings import DataSettings
from .table import Table, read_table
from .table_settings import EPOCHS
from .table_times import EPOCH_YEARS, UnreadableTime, parse_times

YEAR_SECONDS = 365.2425 * 24 * 3600


class Columns(NamedTuple):
    """The names of a table's columns; None: it has none."""

    user: str
    item: str
    rating: str | None
    time: str | None


@dataclass
class Interactions:
    """A row per user and item, by their places in `users` and `items`; each pair once."""

    users: list[str]
    items: list[str]
    user: np.ndarray  # int64 (row,)
    item: np.ndarray
    time: np.ndarray | None = None  # float64 (row,), in seconds if it has a known unit
    titles: dict[str, str] = field(default_factory=dict)  # by item
    notes: list[str] = field(default_factory=list)

    def select(self, rows: np.ndarray) -> Self:
        """Keep some rows: their places, or bool (row,)."""
        time = None if self.time is None else self.time[rows]
        return replace(self, user=self.user[rows], item=self.item[rows], time=time)


def read_interactions(settings: DataSettings) -> Interactions:
    """Read a table with a row per interaction, and the items' titles if a column has them."""
    assert settings.path is not None, "checked by the settings"
    columns = Columns(settings.user, settings.item, settings.rating, settings.time)
    table = read_table(settings.path, settings.table)
    interactions = from_table(table, columns, settings)
    if settings.title is not None:
        other = settings.titles is not None
        source = read_table(settings.titles, settings.table) if settings.titles else table
        interactions.titles = read_titles(source, settings.item, settings.title, interactions.notes)
        interactions.notes += source.notes if other else []
    return interactions


def from_table(table: Table, columns: Columns, settings: DataSettings) -> Interactions:
    """Check the rows and keep one per user and item, of those with a sufficient rating."""
    notes: list[str] = []
    # 1. The columns; rows with empty cells are refused, or left out.
    users, user, bad_user = _ids(table, columns.user, "data.user", notes)
    items, item, bad_item = _ids(table, columns.item, "data.item", notes)
    absent = {columns.user: bad_user, columns.item: bad_item}
    rating = time = None
    if columns.rating is not None:
        rating = table.numbers(columns.rating, "data.rating", empty_as_nan=True)
        absent[columns.rating] = np.isnan(rating)
    if columns.time is not None:
        time = _seconds(table, columns.time, notes)
        absent[columns.time] = np.isnan(time)
    complete = _complete(table, absent, settings.missing, notes)
    interactions = Interactions(users, items, user, item, time, notes=notes)
    if complete is not None:
        interactions = interactions.select(complete)
        rating = None if rating is None else rating[complete]
    # 2. One row per pair; low ratings are ignored after it, for a later one may be higher.
    rows, rating = _one_per_pair(interactions, rating, settings.repeats)
    if rating is not None:
        if settings.min_rating is None:
            notes.append("Ratings are not used: without data.min_rating low ones count like high.")
        else:
            high = rating >= settings.min_rating
            notes.append(
                f"{len(rows) - high.sum():,} ratings below {settings.min_rating:g} are ignored "
                f"(data.min_rating), {high.sum():,} count."
            )
            rows = rows[high]
            if not len(rows):
                raise UserError(
                    f"{table.path}: no row is left (data.min_rating={settings.min_rating:g}, the "
                    f"highest rating is {rating.max():g})"
                )
    notes += table.notes
    return interactions.select(rows)


def read_titles(table: Table, item: str, title: str, notes: list[str]) -> dict[str, str]:
    """Return each item's first title; items whose title is empty have none."""
    items, of_item, _ = _ids(table, item, "data.item", notes)
    texts, of_title = table.codes(title, "data.title")
    pairs = np.unique(of_item * (len(texts) + 1) + of_title, return_index=True)[1]
    titles: dict[str, str] = {}
    several = set()
    for row in np.sort(pairs).tolist():
        name, text = items[of_item[row]], texts[of_title[row]]
        if text and titles.setdefault(name, text) != text:
            several.add(name)
    if several:
        notes.append(
            f"Items with several titles in {table.path.name}: {len(several):,}; the first counts."
        )
    return titles


def _ids(
    table: Table, column: str, setting: str, notes: list[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the distinct ids, each row's place in them, and which rows have none.

    Whole numbers that were exported as floats, as pandas does beside empty cells, are what they
    were: if all ids of a column are whole numbers, 12.0 is 12.
    """
    texts, codes = table.codes(column, setting)
    missing = {"", *table.settings.missing}
    matches = [WHOLE_ID.fullmatch(text) for text in texts if text not in missing]
    if any(match and match[2] for match in matches) and all(matches):
        whole = [text if text in missing else WHOLE_ID.sub(r"\1", text) for text in texts]
        places = {text: place for place, text in enumerate(dict.fromkeys(whole))}
        codes = np.array([places[text] for text in whole])[codes]
        texts = list(places)
        notes.append(
            f"Ids such as '12.0' in column {column!r} of {table.path.name} are read as '12'."
        )
    is_missing = np.array([text in missing for text in texts], bool)
    return texts, codes, is_missing[codes]


def _seconds(table: Table, column: str, notes: list[str]) -> np.ndarray:
    """Return times in seconds, NaN where the cell is empty.

    Numbers that are no epoch of a known unit are kept as they are: they still give an order.
    """
    form, not_numbers = table.settings.times, None
    if form == "auto" or form in EPOCHS:
        try:
            values = table.numbers(column, "data.time", empty_as_nan=True)
            return values / (EPOCHS[form] if form in EPOCHS else _unit(values))
        except UserError as error:
            not_numbers = error
    texts, codes = table.codes(column, "data.time")
    filled = [text for text in texts if text]
    if not_numbers and (form in EPOCHS or filled[0].isdecimal()):
        raise not_numbers
    try:
        moments, note = parse_times(filled, form)
    except UnreadableTime as error:
        place = int(np.argmax(codes == texts.index(filled[error.position])))
        raise table.error(place, column, str(error)) from None
    if note is not None:
        notes.append(f"{table.path.name}, column {column!r}: {note}.")
    aware = (moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in moments)
    seconds = dict(zip(filled, (moment.timestamp() for moment in aware), strict=True))
    return np.array([seconds.get(text, np.nan) for text in texts])[codes]


def _unit(values: np.ndarray) -> int:
    """Return how many of the unit of these numbers since 1970 are a second; 1 if it is unknown."""
    bounds = np.array([EPOCH_YEARS.start, EPOCH_YEARS.stop]) - 1970
    for per_second in EPOCHS.values():
        low, high = bounds * YEAR_SECONDS * per_second
        if np.nanmin(values, initial=np.inf) >= low and np.nanmax(values, initial=0) < high:
            return per_second
    return 1


def _complete(
    table: Table, absent: dict[str, np.ndarray], missing: str, notes: list[str]
) -> np.ndarray | None:
    """Return which rows have all cells, None if all do. UserError if none may lack any."""
    counts = {column: int(rows.sum()) for column, rows in absent.items() if rows.any()}
    if not counts:
        return None
    if missing == "refuse":
        column = next(iter(counts))
        many = f" (as in {counts[column]:,} rows)" if counts[column] > 1 else ""
        reason = f"is empty{many}; data.missing=skip leaves such rows out"
        raise table.error(int(absent[column].argmax()), column, reason)
    incomplete = np.logical_or.reduce(list(absent.values()))
    if incomplete.all():
        raise UserError(f"{table.path}: no row is left, all lack {' or '.join(counts)}")
    cells = ", ".join(f"{count:,} no {column}" for column, count in counts.items())
    notes.append(f"Rows left out by data.missing=skip: {incomplete.sum():,} ({cells}).")
    return ~incomplete


def _one_per_pair(
    interactions: Interactions, rating: np.ndarray | None, which: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return one row per user and item, in the file's order, and the rating that counts for it."""
    pair = interactions.user * len(interactions.items) + interactions.item
    time, rows = interactions.time, np.arange(len(pair))
    if (np.diff(np.sort(pair)) > 0).all():
        return rows, rating
    order = np.argsort(pair, kind="stable") if time is None else np.lexsort((time, pair))
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1) > 0)
    ends = np.append(starts[1:], len(pair)) - 1
    rows = order[starts if which == "first" else ends]
    if rating is not None and which in ("max", "mean"):
        reduce = np.maximum if which == "max" else np.add
        counts = 1 if which == "max" else ends - starts + 1
        rating[rows] = reduce.reduceat(rating[order], starts) / counts
    rows = np.sort(rows)
    if rating is None:
        counted = "each pair counts once"
    else:
        by = "" if which in ("max", "mean") else " in the file" if time is None else " by time"
        counted = f"the {which} rating{by} counts (data.repeats)"
    repeated = len(pair) - len(rows)
    interactions.notes.append(f"Rows that repeat a user and an item: {repeated:,}; {counted}.")
    return rows, None if rating is None else rating[rows]
