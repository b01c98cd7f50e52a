"""CSV files as columns of text; whatever is wrong is reported with its row and column.

No pandas: row numbers stay those that an editor shows, and the server can read files with it.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from ..config import UserError


@dataclass(frozen=True)
class Table:
    """The rows of a CSV file; `lines` has each row's number in the file, the header being 1."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def column(self, name: str, setting: str) -> list[str]:
        """A column's texts; UserError naming the setting that asked for it."""
        if name not in self.columns:
            there = ", ".join(self.columns)
            raise UserError(f"{self.path}: row 1: no column {name!r} ({setting}), found: {there}")
        return self.columns[name]

    def numbers(self, name: str, setting: str) -> list[float]:
        """A column of finite numbers."""
        found = []
        for line, text in zip(self.lines, self.column(name, setting), strict=True):
            value = number(text)
            if value is None:
                shown = repr(text) if text else "an empty cell"
                reason = f"{shown} is not a finite number"
                raise UserError(f"{self.path}: row {line}, column {name!r}: {reason}")
            found.append(value)
        return found


def number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e30 else None


def read(path: Path, separator: str = ",") -> Table:
    """A CSV file in UTF-8 with a header; UserError in one line when it is none."""
    lines: list[int] = []
    rows: list[list[str]] = []
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
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
    except UnicodeDecodeError:
        raise UserError(f"{path}: row {_first_bad_line(path)} is not UTF-8 text") from None
    except csv.Error as error:
        raise UserError(f"{path}: row {line + 1} is not CSV: {error}") from None
    if not rows:
        raise UserError(f"{path}: row 2: there are no rows below the header")
    return Table(path, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)), lines)


def _check_header(path: Path, header: list[str], separator: str) -> None:
    if not any(header):
        raise UserError(f"{path}: row 1: is empty, it must name the columns")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: row 1: the column {twice!r} stands twice")
    other = next((mark for mark in ";\t|" if mark in header[0]), None)
    if len(header) == 1 and other is not None:
        raise UserError(
            f"{path}: row 1: one column only; is it separated by {other!r} and not {separator!r}?"
        )


def _first_bad_line(path: Path) -> int:
    for line, content in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            return line
    return 1
