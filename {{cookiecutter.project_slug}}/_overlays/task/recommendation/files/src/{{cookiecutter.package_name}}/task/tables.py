"""Read interactions (user, item, and time if known) from CSV files and MovieLens."""

import csv
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..config import UserError
from .settings import DataSettings

# MovieLens' files and their separators
RATINGS = {"u.data": "\t", "ratings.dat": "::", "ratings.csv": ","}
TITLES = {
    "u.data": ("u.item", "|"),
    "ratings.dat": ("movies.dat", "::"),
    "ratings.csv": ("movies.csv", ","),
}
MOVIELENS_COLUMNS = ["userId", "movieId", "rating", "timestamp"]


@dataclass
class Interactions:
    """A row per user and item, by their places in `users` and `items`."""

    users: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)  # by item
    user: array = field(default_factory=lambda: array("q"))
    item: array = field(default_factory=lambda: array("q"))
    time: array | None = None  # seconds
    repeated: int = 0  # rows that repeat an earlier one
    low: int = 0  # rows with a rating below the minimum

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return user, item and, if known, time of each row (row,)."""
        time = None if self.time is None else np.array(self.time, np.float64)
        return np.array(self.user, np.int64), np.array(self.item, np.int64), time


def read_csv(settings: DataSettings) -> Interactions:
    """Read a CSV file with a header; UserError that names file, row and column of an error."""
    assert settings.path is not None, "checked by the settings"
    columns = [settings.user, settings.item, settings.rating, settings.time]
    return _read_rows(settings.path, ",", columns, None, settings.min_rating)


def read_movielens(settings: DataSettings) -> Interactions:
    """Read MovieLens' ratings in any of its three formats, with the films' titles if present."""
    assert settings.path is not None, "checked by the settings"
    path = settings.path
    if not path.exists():
        raise UserError(f"{path}: no such file or folder (data.path)")
    if path.is_dir():
        files = [path / name for name in RATINGS if (path / name).is_file()]
        if not files:
            raise UserError(f"{path}: contains none of {', '.join(RATINGS)}")
        path = files[0]
    kind = next((name for name in RATINGS if path.suffix == Path(name).suffix), None)
    if kind is None:
        raise UserError(f"{path}: is none of {', '.join(RATINGS)} (data.path)")
    names = None if kind == "ratings.csv" else MOVIELENS_COLUMNS
    columns: list[str | None] = [*MOVIELENS_COLUMNS]
    interactions = _read_rows(path, RATINGS[kind], columns, names, settings.min_rating)
    name, separator = TITLES[kind]
    if (path.parent / name).is_file():
        interactions.titles = _read_titles(path.parent / name, separator)
    return interactions


def _read_rows(
    path: Path,
    separator: str,
    columns: list[str | None],
    names: list[str] | None,
    least: float | None,
) -> Interactions:
    """Read the `columns` user, item, rating and time (None: not in the file).

    `names` are the file's columns, None if it has a header. A second row with the same user and
    item is an error if there are ratings; otherwise the first one counts.
    """
    interactions = Interactions(time=array("d") if columns[3] else None)
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    first_rows: dict[tuple[int, int], int] = {}  # row number of each pair
    # 1. Find the columns.
    table = _numbered_rows(path, separator)
    number = 0
    if names is None:
        number, names = next(table, (0, None))
        if names is None:
            raise UserError(f"{path}: is empty")
        names[0] = names[0].removeprefix("\ufeff")
    places = [None if name is None else _column_place(path, names, name) for name in columns]
    # 2. Check and collect the rows.
    for number, row in table:
        if len(row) != len(names):
            raise UserError(f"{path}: row {number} has {len(row)} fields, expected {len(names)}")
        user, item, rating, time = ("" if at is None else row[at].strip() for at in places)
        for name, text in zip(columns[:2], (user, item), strict=True):
            if not text:
                raise UserError(f"{path}: row {number}, column {name}: is empty")
        when = 0.0 if columns[3] is None else _parse_time(path, number, columns[3], time)
        value = None if columns[2] is None else _parse_rating(path, number, columns[2], rating)
        pair = users.setdefault(user, len(users)), items.setdefault(item, len(items))
        first = first_rows.setdefault(pair, number)
        if first != number and value is not None:
            raise UserError(
                f"{path}: row {number}, column {columns[1]}: user {user!r} has already "
                f"rated {item!r} in row {first}"
            )
        if first != number:
            interactions.repeated += 1
        elif least is not None and value is not None and value < least:
            interactions.low += 1
        else:
            interactions.user.append(pair[0])
            interactions.item.append(pair[1])
            if interactions.time is not None:
                interactions.time.append(when)
    if not number:
        raise UserError(f"{path}: is empty")
    interactions.users, interactions.items = list(users), list(items)
    if not interactions.user:
        raise UserError(f"{path}: no row is left (data.min_rating={least})")
    return interactions


def _numbered_rows(
    path: Path, separator: str, encoding: str = "utf-8"
) -> Iterator[tuple[int, list[str]]]:
    """Yield (row, fields) of each line that is not blank; reading errors become UserError."""
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for number, content in enumerate(file, 1):
            line = content.decode(encoding)
            if separator == "," and "\0" in line:
                raise UserError(f"{path}: row {number} contains a zero byte, so it is not CSV")
            yield line

    try:
        with path.open("rb") as file:
            if separator == ",":
                yield from ((number, row) for row in csv.reader(lines(), strict=True) if row)
            else:
                for line in lines():
                    if line.strip():
                        yield number, line.rstrip("\r\n").split(separator)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (data.path)") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: row {number} is not {error.encoding}: {error.reason}") from None
    except csv.Error as error:
        raise UserError(f"{path}: row {number}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _column_place(path: Path, names: list[str], name: str) -> int:
    places = [place for place, header in enumerate(names) if header.strip() == name]
    if len(places) != 1:
        problem = "no column" if not places else "more than one column"
        raise UserError(f"{path}: row 1: {problem} {name!r}, only {', '.join(names).strip()}")
    return places[0]


def _parse_rating(path: Path, row: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}: row {row}, column {column}: {text!r} is not a finite number")
    return value


def _parse_time(path: Path, row: int, column: str, text: str) -> float:
    """Parse seconds or an ISO 8601 date, which is UTC if it has no offset."""
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            value = math.nan
    if not math.isfinite(value):
        reason = f"{text!r} is neither seconds nor an ISO date"
        raise UserError(f"{path}: row {row}, column {column}: {reason}")
    return value


def _read_titles(path: Path, separator: str) -> dict[str, str]:
    """Read titles by id from MovieLens' file of films; older ones are in Latin-1."""
    rows = list(_numbered_rows(path, separator, "utf-8" if separator == "," else "latin-1"))
    titles = {}
    for number, row in rows[1:] if separator == "," else rows:
        if len(row) < 2:
            raise UserError(f"{path}: row {number} has {len(row)} fields, expected id and title")
        titles[row[0].strip()] = row[1].strip()
    return titles
