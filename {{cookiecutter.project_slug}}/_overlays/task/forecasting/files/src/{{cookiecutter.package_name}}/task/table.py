"""Read CSV files as columns of text; errors name row and column.

No pandas: row numbers are those that an editor shows, and `predict` needs no extra dependency.
"""

import csv
import math
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from ..config import UserError


@dataclass(frozen=True)
class Table:
    """The columns of a CSV file; `lines` holds each row's number in the file, the header is 1."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def column(self, name: str, setting: str) -> list[str]:
        """Return a column's texts; UserError that names the setting if it is missing."""
        if name not in self.columns:
            names = ", ".join(self.columns)
            raise UserError(f"{self.path}: row 1: no column {name!r} ({setting}), only {names}")
        return self.columns[name]

    def numbers(self, name: str, setting: str) -> list[float]:
        """Return a column of finite numbers; UserError that names the first bad row."""
        values = []
        for line, text in zip(self.lines, self.column(name, setting), strict=True):
            value = number(text)
            if value is None:
                cell = repr(text) if text else "an empty cell"
                reason = f"{cell} is not a finite number"
                raise UserError(f"{self.path}: row {line}, column {name!r}: {reason}")
            values.append(value)
        return values


def number(text: str) -> float | None:
    """Parse a finite number; None if it is not one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e30 else None


def read_table(path: Path, separator: str = ",") -> Table:
    """Read a CSV file in UTF-8 with a header; UserError in one line if it is not one."""
    lines: list[int] = []
    rows: list[list[str]] = []
    line = 0
    try:
        file = StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
        reader = csv.reader(file, delimiter=separator, strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(path, header, separator)
        for row in reader:
            line = reader.line_num
            if not row:
                continue
            if len(row) != len(header):
                reason = f"has {len(row)} cells, the header has {len(header)}"
                raise UserError(f"{path}: row {line} {reason}")
            rows.append([cell.strip() for cell in row])
            lines.append(line)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: row {line} is not UTF-8 text") from None
    except csv.Error as error:
        raise UserError(f"{path}: row {line + 1} is not valid CSV: {error}") from None
    if not rows:
        raise UserError(f"{path}: row 2: there are no rows below the header")
    return Table(path, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)), lines)


def _check_header(path: Path, header: list[str], separator: str) -> None:
    if not any(header):
        raise UserError(f"{path}: row 1: is empty, expected the column names")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: row 1: duplicate column {twice!r}")
    other = next((mark for mark in ";\t|" if mark in header[0]), None)
    if len(header) == 1 and other is not None:
        raise UserError(
            f"{path}: row 1: only one column; is the separator {other!r} instead of {separator!r}?"
        )
