"""Read texts and their classes from CSV and JSONL files."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..config import UserError
from .settings import DataSettings
from .texts import SPLIT_NAMES, Corpus, LabelledTexts, split_by_hash

PlacedRows = Iterator[tuple[str, dict[str, str]]]  # (file and row, fields)


class TextRow(NamedTuple):
    """A text in a file."""

    text: str
    label: str
    split: str
    place: str  # file and row, for messages


def read_tables(settings: DataSettings) -> Corpus:
    """Read the files; UserError in one line that names file, row and column of an error.

    A text in several rows counts once, and is never in two splits.
    """
    path = settings.path
    assert path is not None, "checked by the settings"
    # 1. Read the rows, the test file's first: texts that are in both files stay in test.
    rows: list[TextRow] = []
    if settings.test_path is not None:
        rows += _text_rows(settings.test_path, settings, "test")
    rows += _text_rows(path, settings)
    # 2. Remove copies, and texts in two classes.
    first: dict[str, TextRow] = {}
    conflicting: set[str] = set()
    for row in rows:
        copy = first.setdefault(row.text, row)
        if copy.label != row.label:
            conflicting.add(row.text)
            if settings.conflicts == "refuse":
                raise UserError(
                    f"{row.place}, column {settings.label}: the text of {copy.place} is "
                    f"{row.label!r} here and {copy.label!r} there (data.conflicts=drop leaves "
                    "such texts out)"
                )
    by_split = {name: LabelledTexts() for name in SPLIT_NAMES}
    for row in first.values():
        if row.text not in conflicting:
            by_split[row.split].add(row.text, row.label)
    # 3. Describe the data for the report.
    kept = sum(len(part.texts) for part in by_split.values())
    about = f"{kept:,} texts of {path.name}"
    if settings.test_path is not None:
        about += f" and, for test, {settings.test_path.name}"
    elif settings.split is None:
        about += "; each text's hash decides its split"
    if kept < len(rows):
        about += f"; {len(rows) - kept:,} rows with copied or conflicting texts are left out"
    return Corpus(by_split, list(by_split["train"].texts), str(path), about + ".")


def _text_rows(path: Path, settings: DataSettings, split: str | None = None) -> Iterator[TextRow]:
    """Yield a file's rows; those of a file without a fixed `split` by column or by hash."""
    names = [*settings.text, settings.label, *([settings.split] if settings.split else [])]
    read_rows = _jsonl_rows if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows
    for place, row in read_rows(path, names, settings.header):
        text = " ".join(" ".join(row[name] for name in settings.text).split())
        label = row[settings.label].strip()
        for name, value in (("+".join(settings.text), text), (settings.label, label)):
            if not value:
                raise UserError(f"{place}, column {name}: is empty")
        row_split = split
        if row_split is None and settings.split is not None:
            row_split = row[settings.split].strip()
            if row_split not in SPLIT_NAMES:
                reason = f"is {row_split!r}, must be one of {', '.join(SPLIT_NAMES)}"
                raise UserError(f"{place}, column {settings.split}: {reason}")
        label = settings.names.get(label, label)
        yield TextRow(text, label, row_split or split_by_hash(text, settings), place)


def _csv_rows(path: Path, names: list[str], header: list[str]) -> PlacedRows:
    lines = csv.reader(_read_utf8(path).splitlines(keepends=True), strict=True)
    try:
        columns = header or next(lines, [])
        for name in names:
            if name not in columns:
                raise UserError(f"{path}: has no column {name!r} (columns: {', '.join(columns)})")
        start = lines.line_num + 1
        for row in lines:
            place, start = f"{path}, row {start}", lines.line_num + 1
            if len(row) != len(columns):
                raise UserError(f"{place}: has {len(row)} columns, expected {len(columns)}")
            yield place, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, row {lines.line_num}: is not valid CSV: {error}") from None


def _jsonl_rows(path: Path, names: list[str], header: list[str]) -> PlacedRows:
    for number, line in enumerate(_read_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{place}: must be a JSON object, {{...}}")
        yield place, {name: _as_text(row.get(name), f"{place}, column {name}") for name in names}


def _as_text(value: Any, place: str) -> str:
    if value is None:
        raise UserError(f"{place}: is missing")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{place}: is {value}")
    if not isinstance(value, (str, int, float)):
        raise UserError(f"{place}: is {type(value).__name__}, must be text or a number")
    return str(value)


def _read_utf8(path: Path) -> str:
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
