"""Texts and their classes from a CSV or JSONL file."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..config import UserError
from .settings import DataSettings
from .texts import PARTS, Part, Texts, part_by_hash


class Row(NamedTuple):
    """A text as it stands in a file."""

    text: str
    label: str
    home: str  # the split it belongs to
    where: str  # for messages


def read(settings: DataSettings) -> Texts:
    """The files' texts; UserError in one line naming file, row and column when unfit.

    A text that stands in several rows counts once, and never in two splits.
    """
    path = settings.path
    assert path is not None, "the settings' own check"
    rows: list[Row] = []
    if settings.test_path is not None:
        # First, so that a text that both files hold is taken out of training and not of test.
        rows += _rows(settings.test_path, settings, "test")
    rows += _rows(path, settings)
    first: dict[str, Row] = {}
    disputed: set[str] = set()
    for row in rows:
        twin = first.setdefault(row.text, row)
        if twin.label != row.label:
            disputed.add(row.text)
            if settings.conflicts == "refuse":
                raise UserError(
                    f"{row.where}, column {settings.label}: the text of {twin.where} is "
                    f"{row.label!r} here and {twin.label!r} there (data.conflicts=drop leaves "
                    "such texts out)"
                )
    parts = {name: Part() for name in PARTS}
    for row in first.values():
        if row.text not in disputed:
            parts[row.home].add(row.text, row.label)
    kept = sum(len(part.texts) for part in parts.values())
    about = f"{kept:,} texts of {path.name}"
    if settings.test_path is not None:
        about += f" and, for test, {settings.test_path.name}"
    elif settings.split is None:
        about += "; each text's own hash decides which split it belongs to"
    if kept < len(rows):
        about += f"; {len(rows) - kept:,} rows with a text that stands elsewhere are left out"
    return Texts(parts, list(parts["train"].texts), str(path), about + ".")


def _rows(path: Path, settings: DataSettings, home: str | None = None) -> Iterator[Row]:
    names = [*settings.text, settings.label, *([settings.split] if settings.split else [])]
    cells = _jsonl if path.suffix.lower() in (".jsonl", ".ndjson") else _csv
    for where, row in cells(path, names, settings.header):
        text = " ".join(" ".join(row[name] for name in settings.text).split())
        label = row[settings.label].strip()
        for name, value in (("+".join(settings.text), text), (settings.label, label)):
            if not value:
                raise UserError(f"{where}, column {name}: is empty")
        own = home
        if own is None and settings.split is not None:
            own = row[settings.split].strip()
            if own not in PARTS:
                raise UserError(
                    f"{where}, column {settings.split}: is {own!r}, must be {', '.join(PARTS)}"
                )
        label = settings.names.get(label, label)
        yield Row(text, label, own or part_by_hash(text, settings), where)


def _csv(path: Path, names: list[str], header: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    lines = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    try:
        columns = header or next(lines, [])
        for name in names:
            if name not in columns:
                raise UserError(f"{path}: has no column {name!r} (found: {', '.join(columns)})")
        start = lines.line_num + 1
        for row in lines:
            where, start = f"{path}, row {start}", lines.line_num + 1
            if len(row) != len(columns):
                raise UserError(f"{where}: has {len(row)} columns, expected {len(columns)}")
            yield where, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, row {lines.line_num}: is not CSV: {error}") from None


def _jsonl(path: Path, names: list[str], header: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: must hold names and values, as in {{...}}")
        yield where, {name: _cell(row.get(name), f"{where}, column {name}") for name in names}


def _cell(value: Any, where: str) -> str:
    if value is None:
        raise UserError(f"{where}: is missing")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: is {value}")
    if not isinstance(value, (str, int, float)):
        raise UserError(f"{where}: is {type(value).__name__}, must be text or a number")
    return str(value)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not content.strip():
        raise UserError(f"{path}: is empty")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, row {row}: is not UTF-8 (byte {error.start})") from None
