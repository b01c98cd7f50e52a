"""Tables (CSV and its relatives, JSON, Parquet) as columns; errors name file, row and column."""

import json
import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ..config import UserError
from . import table_files
from .table_settings import TableSettings, shown
from .table_times import UnreadableTime, parse_times

pc: Any = pyarrow.compute  # makes its functions on import, unseen by type checkers
LARGEST_NUMBER = 1e30  # float32 overflows at 3e38
DIGITS = r"\d+({d}\d*)?|{d}\d+"
GROUPED_DIGITS = r"\d\d?\d?(?:{t}\d\d\d)+({d}\d*)?"


@dataclass(frozen=True)
class Table:
    """Columns of one length; `notes` are sentences on what was guessed, for the report."""

    path: Path
    settings: TableSettings
    columns: list[tuple[str, Any]] = field(repr=False)  # name; Arrow array, or list from JSON
    notes: list[str]
    rows: list[int] | None = field(repr=False)  # each row's number; a CSV file's are looked up

    def __len__(self) -> int:
        return len(self.columns[0][1])

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]

    def texts(self, column: str, setting: str) -> list[str]:
        """Return a column's cells as they are written; missing ones are empty.

        `setting` is the one that names the column, for messages.
        """
        return self._texts(column, setting).to_pylist()

    def codes(self, column: str, setting: str) -> tuple[list[str], np.ndarray]:
        """Return a column's distinct cells without blanks around them, and each row's place in
        them, int64 (row,): where millions of rows hold few cells, much less than `texts`."""
        encoded = pc.utf8_trim_whitespace(self._texts(column, setting)).dictionary_encode()
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)

    def numbers(self, column: str, setting: str, empty_as_nan: bool = False) -> np.ndarray:
        """Return a column as float64 (row,); UserError names the first cell that is no number."""
        cells = self._cells(column, setting)
        if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type):
            values = cells.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy()
            empty = np.isnan(values)
        else:
            texts = pc.utf8_trim_whitespace(self._texts(column, setting))
            absent = pc.is_in(texts, pa.array(["", *self.settings.missing], pa.string()))
            empty = absent.to_numpy(zero_copy_only=False)
            values = self._parsed(column, pc.if_else(absent, "0", texts))
        wrong = ~(np.abs(values) < LARGEST_NUMBER)
        wrong = wrong & ~empty if empty_as_nan else wrong | empty
        if wrong.any():
            place = int(wrong.argmax())
            raise self._not_a_number(place, column, self.texts(column, setting)[place])
        return np.where(empty, math.nan, values)

    def times(self, column: str, setting: str) -> list[datetime]:
        """Return a column's times, read by `data.table.times`; epochs are in UTC."""
        texts = [text.strip() for text in self.texts(column, setting)]
        try:
            moments, note = parse_times(texts, self.settings.times)
        except UnreadableTime as error:
            raise self.error(error.position, column, str(error)) from None
        if note is not None:
            self.notes.append(f"{self.path.name}, column {column!r}: {note}.")
        return moments

    def row(self, place: int) -> int:
        """Return the number of a row in its file, as an editor shows it."""
        return (self._lines if self.rows is None else self.rows)[place]

    def error(self, place: int, column: str | None, reason: str) -> UserError:
        """Build the error for a row, or for a cell."""
        cell = "" if column is None else f", column {column!r}"
        return UserError(f"{self.path}: row {self.row(place)}{cell}: {reason}")

    def _cells(self, name: str, setting: str) -> Any:
        """Return a column as an Arrow array; UserError that names the setting if it is missing."""
        found = [place for place, other in enumerate(self.names) if other == name]
        if len(found) != 1:
            reason = self._existing() if not found else f"there are {len(found)} of this name"
            raise UserError(f"{self.path}: no column {name!r} ({setting}): {reason}")
        cells = self.columns[found[0]][1]
        if not isinstance(cells, list):
            return cells
        try:
            array = pa.array(cells)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            array = None
        if array is None or pa.types.is_nested(array.type) or pa.types.is_boolean(array.type):
            texts = [self._json_text(place, name, cell) for place, cell in enumerate(cells)]
            return pa.array(texts, pa.string())
        return array

    def _texts(self, name: str, setting: str) -> Any:
        cells = self._cells(name, setting)
        if pa.types.is_floating(cells.type):
            cells = pc.if_else(pc.is_nan(cells), None, cells)
        try:
            return cells.cast(pa.string()).fill_null("")
        except pa.ArrowException:
            reason = f"holds {cells.type}, must be text, numbers or times"
            raise UserError(f"{self.path}: column {name!r} ({setting}) {reason}") from None

    def _json_text(self, place: int, name: str, value: Any) -> str | None:
        if isinstance(value, (dict, list)):
            raise self.error(
                place, name, f"is {shown(json.dumps(value))}, must be text or a number"
            )
        return value if value is None or isinstance(value, str) else json.dumps(value)

    def _existing(self) -> str:
        """List the columns, and what may be wrong with them."""
        names = ", ".join(map(shown, self.names[:20])) + (", …" if len(self.names) > 20 else "")
        hint = ""
        if self.rows is None and not self.settings.header:
            no_header = "if the file has no header, data.table.header names its columns"
            hint = f"; {table_files.other_separator(self.names) or no_header}"
        return f"only {names}{hint}"

    def _parsed(self, column: str, texts: Any) -> np.ndarray:
        """Parse numbers with the signs of the settings; UserError for the first that is none."""
        decimal, thousands = self.settings.decimal, self.settings.thousands
        signs = {"d": re.escape(decimal), "t": re.escape(thousands or "")}
        valid = _matches(texts, DIGITS.format(**signs))
        if thousands is not None:
            grouped = _matches(texts, GROUPED_DIGITS.format(**signs))
            valid = pc.or_(valid, grouped)
            texts = pc.if_else(grouped, pc.replace_substring(texts, thousands, ""), texts)
        place = valid.index(False).as_py()
        if place >= 0:
            raise self._not_a_number(place, column, texts[place].as_py())
        points = pc.replace_substring(texts, decimal, ".")
        return points.cast(pa.float64()).to_numpy()

    def _not_a_number(self, place: int, column: str, text: str) -> UserError:
        cell = shown(text) if text else "an empty cell"
        return self.error(place, column, f"{cell} is not a finite number{_number_hint(text)}")

    @cached_property
    def _lines(self) -> list[int]:
        return table_files.csv_lines(self.path, self.settings)


def read_table(path: Path, settings: TableSettings) -> Table:
    """Read a file; UserError in one line that names the row of an error and the setting."""
    content = table_files.read_columns(path, settings)
    if not content.columns or not len(content.columns[0][1]):
        raise UserError(f"{path}: row 2: there are no rows below the header")
    return Table(path, content.settings, content.columns, content.notes, content.rows)


def _matches(texts: Any, digits: str) -> Any:
    return pc.match_substring_regex(texts, rf"^[+-]?({digits})([eE][+-]?\d+)?$")


def _number_hint(text: str) -> str:
    """Name the settings by which a text would be a number."""
    for decimal, thousands in ((",", None), (",", "."), (".", ","), (".", " "), (",", " ")):
        signs = {"d": re.escape(decimal), "t": re.escape(thousands or "")}
        digits = DIGITS if thousands is None else GROUPED_DIGITS
        if re.fullmatch(rf"[+-]?({digits.format(**signs)})", text):
            names = f"data.table.decimal={decimal}"
            if thousands is not None:
                names += f" and data.table.thousands={thousands!r}"
            return f"; with {names} it would be"
    return ""
