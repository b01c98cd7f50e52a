"""Read a CSV file as a request. The server's environment has no library of tables."""

import csv
import math
from io import StringIO
from pathlib import Path
from typing import Any

from ..config import UserError


def item_from_file(path: Path) -> dict[str, Any]:
    """Read a CSV file as a request's item (JSON): columns of times, values, then covariates.

    The header names the target and the covariates, and may name a column `id`. Rows at the end
    without a value are the steps ahead. A covariate that is empty there is known in the past only.
    UserError that names row and column.
    """
    lines, columns = _read_columns(path)
    names = [name for name in columns if name != "id"]
    if len(names) < 2:
        raise UserError(f"{path}: row 1: needs a column of times and one of values")
    time, value, *covariates = names
    count = max((place for place, text in enumerate(columns[value], 1) if text), default=0)

    def numbers(name: str) -> list[float]:
        ahead = any(columns[name][count:])
        return [
            _number(f"{path}: row {line}, column {name!r}", text)
            for line, text in zip(
                lines, columns[name] if ahead else columns[name][:count], strict=ahead
            )
        ]

    item: dict[str, Any] = {"target": value, "times": columns[time][:count]}
    item["values"] = numbers(value)
    if covariates:
        item["covariates"] = {name: numbers(name) for name in covariates}
    if ids := columns.get("id"):
        other = next((place for place, key in enumerate(ids) if key != ids[0]), None)
        if other is not None:
            raise UserError(f"{path}: row {lines[other]}, column 'id': two series in one file")
        item["id"] = ids[0]
    return item


def _read_columns(path: Path) -> tuple[list[int], dict[str, list[str]]]:
    """Return the line in which each row starts, the header's being 1, and the columns' texts."""
    lines: list[int] = []
    rows: list[list[str]] = []
    line = 1
    try:
        reader = csv.reader(
            StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True
        )
        for row in reader:
            if row:
                lines.append(line)
                rows.append([cell.strip() for cell in row])
                if len(row) != len(rows[0]):
                    reason = f"has {len(row)} cells, the header has {len(rows[0])}"
                    raise UserError(f"{path}: row {line}: {reason}")
            line = reader.line_num + 1
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: row {line}: is not UTF-8 text") from None
    except csv.Error as error:
        raise UserError(f"{path}: row {line}: is not valid CSV: {error}") from None
    if len(rows) < 2:
        raise UserError(f"{path}: there are no rows below the header")
    if len(set(rows[0])) < len(rows[0]):
        raise UserError(f"{path}: row {lines[0]}: two columns have one name")
    return lines[1:], dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))


def _number(place: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and abs(value) < 1e30):
        cell = repr(text) if text else "an empty cell"
        raise UserError(f"{place}: {cell} is not a finite number")
    return value
