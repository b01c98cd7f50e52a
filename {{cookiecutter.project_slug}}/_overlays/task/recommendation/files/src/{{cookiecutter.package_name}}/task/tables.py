"""Read interactions from files: who took what, and when if that is known."""

import csv
import math
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..config import UserError
from .settings import DataSettings

# MovieLens' files: separator, and the columns' names where the file has no line of its own for them
RATINGS = {"u.data": "\t", "ratings.dat": "::", "ratings.csv": ","}
TITLES = {
    "u.data": ("u.item", "|"),
    "ratings.dat": ("movies.dat", "::"),
    "ratings.csv": ("movies.csv", ","),
}
COLUMNS = ["userId", "movieId", "rating", "timestamp"]


@dataclass
class Interactions:
    """Each row is a user who took an item; users and items by their place in `users`, `items`."""

    users: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)  # by item
    user: array = field(default_factory=lambda: array("q"))
    item: array = field(default_factory=lambda: array("q"))
    time: array | None = None  # seconds
    repeated: int = 0  # rows that said again what an earlier one had said
    low: int = 0  # rows with too low a rating

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """User (row,), item (row,) and time (row,) if there is one."""
        time = None if self.time is None else np.array(self.time, np.float64)
        return np.array(self.user, np.int64), np.array(self.item, np.int64), time


def read_csv(settings: DataSettings) -> Interactions:
    """A CSV with a line of column names; UserError naming file, row and column of what is wrong."""
    assert settings.path is not None, "the settings' own check"
    columns = [settings.user, settings.item, settings.rating, settings.time]
    return _read(settings.path, ",", columns, None, settings.min_rating)


def read_movielens(settings: DataSettings) -> Interactions:
    """MovieLens' ratings, in any of its three formats, with the films' titles if they are there."""
    assert settings.path is not None, "the settings' own check"
    path = settings.path
    if not path.exists():
        raise UserError(f"{path}: no such file or folder (data.path)")
    if path.is_dir():
        there = [path / name for name in RATINGS if (path / name).is_file()]
        if not there:
            raise UserError(f"{path}: holds none of {', '.join(RATINGS)}")
        path = there[0]
    kind = next(
        (name for name in RATINGS if path.name == name or path.suffix == Path(name).suffix), None
    )
    if kind is None:
        raise UserError(f"{path}: is none of {', '.join(RATINGS)} (data.path)")
    names = None if kind == "ratings.csv" else COLUMNS
    found = _read(path, RATINGS[kind], list(COLUMNS), names, settings.min_rating)
    name, separator = TITLES[kind]
    if (path.parent / name).is_file():
        found.titles = _titles(path.parent / name, separator)
    return found


def _read(
    path: Path,
    separator: str,
    columns: list[str | None],
    names: list[str] | None,
    least: float | None,
) -> Interactions:
    """Rows of user, item, rating and time (None: not there) to interactions.

    With ratings or times a user's second row about an item says something else than the first: it
    is refused with ratings, and of two times the first counts.
    """
    found = Interactions(time=array("d") if columns[3] else None)
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows: dict[tuple[int, int], int] = {}  # of each pair: the row, from 1
    with _open(path) as lines:
        table = _fields(path, lines, separator)
        number = 0
        if names is None:
            number, names = next(table, (0, None))
            if names is None:
                raise UserError(f"{path}: is empty")
            names[0] = names[0].removeprefix("\ufeff")
        places = [None if name is None else _place(path, names, name) for name in columns]
        for number, row in table:
            if len(row) != len(names):
                raise UserError(
                    f"{path}: row {number} has {len(row)} fields, expected {len(names)}"
                )
            user, item, rating, time = (None if at is None else row[at].strip() for at in places)
            for name, text in zip(columns[:2], (user, item), strict=True):
                if not text:
                    raise UserError(f"{path}: row {number}, column {name}: is empty")
            assert user is not None, "a column that is always there"
            assert item is not None, "a column that is always there"
            when = 0.0 if time is None else _time(path, number, columns[3], time)
            value = None if rating is None else _rating(path, number, columns[2], rating)
            pair = users.setdefault(user, len(users)), items.setdefault(item, len(items))
            first = rows.setdefault(pair, number)
            if first != number and value is not None:
                raise UserError(
                    f"{path}: row {number}, column {columns[1]}: user {user!r} has rated {item!r} "
                    f"already in row {first}"
                )
            if first != number:
                found.repeated += 1
                continue
            if least is not None and value is not None and value < least:
                found.low += 1
                continue
            found.user.append(pair[0])
            found.item.append(pair[1])
            if found.time is not None:
                found.time.append(when)
        if not number:
            raise UserError(f"{path}: is empty")
    found.users, found.items = list(users), list(items)
    if not found.user:
        raise UserError(f"{path}: no row is left (data.min_rating={least})")
    return found


@contextmanager
def _open(path: Path, encoding: str = "utf-8") -> Iterator[Iterator[tuple[int, str]]]:
    """The numbered lines of a text file; UserError for what cannot be read."""
    number = 0

    def lines() -> Iterator[tuple[int, str]]:
        nonlocal number
        for content in file:
            number += 1
            yield number, content.decode(encoding)

    try:
        with path.open("rb") as file:
            yield lines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (data.path)") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: row {number} is not {error.encoding}: {error.reason}") from None
    except csv.Error as error:
        raise UserError(f"{path}: row {number}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _fields(
    path: Path, lines: Iterator[tuple[int, str]], separator: str
) -> Iterator[tuple[int, list[str]]]:
    """(row, fields) of each line that is not blank."""
    if separator != ",":
        for number, line in lines:
            if line.strip():
                yield number, line.rstrip("\r\n").split(separator)
        return
    last = 0

    def texts() -> Iterator[str]:
        nonlocal last
        for last, line in lines:
            if "\0" in line:
                raise UserError(f"{path}: row {last} holds a zero byte, this is no CSV")
            yield line

    for row in csv.reader(texts(), strict=True):
        if row:
            yield last, row


def _place(path: Path, names: list[str], name: str) -> int:
    found = [place for place, own in enumerate(names) if own.strip() == name]
    if len(found) != 1:
        problem = "no column" if not found else "more than one column"
        raise UserError(f"{path}: row 1: {problem} {name!r}, there are {', '.join(names).strip()}")
    return found[0]


def _rating(path: Path, row: int, column: str | None, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}: row {row}, column {column}: {text!r} is no finite number")
    return value


def _time(path: Path, row: int, column: str | None, text: str) -> float:
    """Seconds, given as such or as an ISO 8601 date; without a zone it is taken as UTC."""
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{path}: row {row}, column {column}: {text!r} is neither seconds nor an ISO date"
        )
    return value


def _titles(path: Path, separator: str) -> dict[str, str]:
    """Title by id from MovieLens' file of films; the older ones are in Latin-1."""
    with _open(path, "utf-8" if separator == "," else "latin-1") as lines:
        rows = [(number, row) for number, row in _fields(path, lines, separator)]
    found = {}
    for number, row in rows[1:] if separator == "," else rows:
        if len(row) < 2:
            raise UserError(f"{path}: row {number} has {len(row)} fields, expected id and title")
        found[row[0].strip()] = row[1].strip()
    return found
