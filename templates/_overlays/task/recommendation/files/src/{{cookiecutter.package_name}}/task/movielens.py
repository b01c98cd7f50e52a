"""Find and read MovieLens' files: ratings and films in each of its three layouts."""

from pathlib import Path

from ..config import UserError
from .interactions import Columns, Interactions, from_table, read_titles
from .settings import DataSettings
from .table import read_table
from .table_settings import TableSettings

COLUMNS = Columns("userId", "movieId", "rating", "timestamp")
# Of each layout: how the file of ratings is written, that of the films, and what separates its
# fields. Between "::" is an empty column; a title may contain ":", so films are read otherwise.
LAYOUTS = {
    "u.data": ({"separator": "\t", "header": list(COLUMNS)}, "u.item", "|"),
    "ratings.dat": (
        {"separator": ":", "header": ["userId", "1", "movieId", "2", "rating", "3", "timestamp"]},
        "movies.dat",
        "::",
    ),
    "ratings.csv": ({"separator": ","}, "movies.csv", ","),
}


def read_movielens(settings: DataSettings) -> Interactions:
    """Read the ratings, with the films' titles if they are in the same folder."""
    assert settings.path is not None, "checked by the settings"
    path = _find_ratings(settings.path)
    suffix = path.suffix.lower()
    options, films, separator = next(
        layout for name, layout in LAYOUTS.items() if name.endswith(suffix)
    )
    quote = '"' if suffix == ".csv" else None
    table_settings = TableSettings.model_validate({"times": "s", "quote": quote, **options})
    table = read_table(path, table_settings)
    interactions = from_table(table, COLUMNS, settings)
    if (path.parent / films).is_file():
        if suffix == ".csv":
            table = read_table(path.parent / films, table_settings)
            titles = read_titles(table, COLUMNS.item, "title", interactions.notes)
        else:
            titles = _read_films(path.parent / films, separator)
        interactions.titles = titles
    else:
        interactions.notes.append(
            f"There is no {films} beside {path.name}, so films have no titles."
        )
    return interactions


def _find_ratings(path: Path) -> Path:
    """Return the file of ratings: the path itself, or in this folder or one below it."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder (data.path)")
    names = ", ".join(LAYOUTS)
    if path.is_file():
        if path.suffix.lower() not in (".data", ".dat", ".csv"):
            raise UserError(f"{path}: is none of {names} (data.path)")
        return path
    found = [path / name for name in LAYOUTS if (path / name).is_file()]
    found = found or sorted(file for name in LAYOUTS for file in path.glob(f"*/{name}"))
    if not found:
        raise UserError(f"{path}: contains none of {names} (data.path)")
    if len(found) > 1:
        files = " and ".join(file.relative_to(path).as_posix() for file in found)
        raise UserError(f"{path}: contains {files}; set data.path to one of them")
    return found[0]


def _read_films(path: Path, separator: str) -> dict[str, str]:
    """Read titles by id. Of these files the larger are in UTF-8, the older ones in Latin-1."""
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    titles = {}
    for row, line in enumerate(text.split("\n"), 1):
        fields = line.strip("\r").split(separator)
        if len(fields) >= 2:
            titles[fields[0].strip()] = fields[1].strip()
        elif line.strip():
            raise UserError(f"{path}: row {row} has 1 field, expected id and title")
    return titles
