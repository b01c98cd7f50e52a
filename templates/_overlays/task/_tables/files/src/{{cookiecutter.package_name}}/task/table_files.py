"""Read files of tables into columns: CSV and its relatives, JSON lines, a JSON array, Parquet.

PyArrow parses CSV: it refuses rows with too few cells as well as those with too many. In which line
of the file a row is, the standard library finds, and only when a message needs it.
"""

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from ..config import UserError
from .table_settings import TableSettings, shown

pc: Any = pyarrow.compute  # makes its functions on import, unseen by type checkers
SEPARATORS = ",;\t|"
SAMPLE_ROWS = 1000  # that a guessed separator must fit
LONGEST_CELL = 2**31 - 1
BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass
class Content:
    """What a file holds, the settings completed by what was guessed, and what to tell."""

    settings: TableSettings
    columns: list[tuple[str, Any]]
    rows: list[int] | None = None  # each row's number; None: see `csv_lines`
    notes: list[str] = field(default_factory=list)


def read_columns(path: Path, settings: TableSettings) -> Content:
    """Read a file in the format of the settings, or else of its name; UserError if it is not."""
    raw = _read(path)
    kind = settings.format
    if kind == "auto":
        kinds = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
        suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
        kind = (
            "parquet" if raw[:4] == b"PAR1" else kinds.get(suffixes[-1] if suffixes else "", "csv")
        )
    if kind == "parquet":
        return _read_parquet(path, raw, settings)
    if raw[:2] == b"PK":
        raise UserError(f"{path}: is a ZIP archive or an Excel file; save the table as CSV")
    text, notes = _decode(path, raw, settings)
    if not text.strip():
        raise UserError(f"{path}: row 1: is empty")
    if kind == "csv":
        return _read_csv(path, text, settings, notes)
    is_array = kind == "json" and text.lstrip()[0] == "["
    rows = _json_array(path, text) if is_array else _json_lines(path, text)
    return _from_json(path, rows, settings, notes)


def csv_lines(path: Path, settings: TableSettings) -> list[int]:
    """Return the line of the file in which each row of a table starts; the first is 1."""
    text = _decode(path, _read(path), settings)[0]
    lines = [line for line, cells in _csv_rows(text, settings) if _is_filled(cells)]
    return lines if settings.header else lines[1:]


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, expected a file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}: is a damaged gzip file: {error}") from None


def _decode(path: Path, raw: bytes, settings: TableSettings) -> tuple[str, list[str]]:
    """Decode a file without its byte order mark; return the text, and what was guessed."""
    encoding, notes = settings.encoding, []
    if encoding == "utf-8" and raw[:2] in BOMS:
        encoding = BOMS[raw[:2]]
        notes.append(f"{path.name} is in UTF-16, says its byte order mark.")
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: row {row}: byte {error.start} ({raw[error.start]:#04x}) is not "
            f"{settings.encoding}; data.table.encoding sets another, for example cp1252"
        ) from None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        reason = "a character NUL; is it a table? data.table.encoding=utf-16-le may help"
        raise UserError(f"{path}: row {row}: {reason}")
    return text, notes


def _read_csv(path: Path, text: str, settings: TableSettings, notes: list[str]) -> Content:
    """Parse CSV; its cells stay text."""
    if settings.separator is None:
        separator = _guess_separator(path, text, settings)
        settings = settings.model_copy(update={"separator": separator})
        if separator != ("\t" if ".tsv" in path.suffixes else ","):
            mark = f"{separator!r} separates the columns of {path.name}"
            notes = [*notes, f"{mark}, as nothing else fits (data.table.separator)."]
    first = next(cells for _, cells in _csv_rows(text, settings) if _is_filled(cells))
    names = settings.header or [name.strip() for name in first]
    fields = [str(place) for place in range(len(names))]
    body = (
        "".join(islice(StringIO(text, newline=""), settings.skip, None)) if settings.skip else text
    )
    content = body.encode("utf-8", "surrogatepass")
    try:
        table = arrow_csv.read_csv(
            BytesIO(content),
            arrow_csv.ReadOptions(
                column_names=fields, block_size=min(len(content) + 1, LONGEST_CELL)
            ),
            arrow_csv.ParseOptions(
                delimiter=settings.separator,
                quote_char=settings.quote or False,
                newlines_in_values=True,
                invalid_row_handler=lambda row: "error" if row.text.strip() else "skip",
            ),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(fields, pa.string())),
        )
    except pa.ArrowInvalid as error:
        _refuse_open_quote(path, text, settings)
        raise _csv_error(path, text, settings, names, str(error)) from None
    _refuse_open_quote(path, text, settings)
    columns = [column.combine_chunks() for column in table.columns]
    blank = pa.scalar(True)
    for column in columns:
        blank = pc.and_(blank, pc.equal(pc.utf8_trim_whitespace(column), ""))
        if not pc.any(blank).as_py():
            break
    else:
        columns = [column.filter(pc.invert(blank)) for column in columns]
    start = 0 if settings.header else 1
    cells = [column.slice(start) for column in columns]
    return Content(settings, list(zip(names, cells, strict=True)), None, notes)


def _csv_rows(text: str, settings: TableSettings) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of CSV and the line in which each starts."""
    csv.field_size_limit(LONGEST_CELL)
    lines = islice(StringIO(text, newline=""), settings.skip, None)
    quoting = csv.QUOTE_MINIMAL if settings.quote else csv.QUOTE_NONE
    reader = csv.reader(
        lines, delimiter=settings.separator or ",", quotechar=settings.quote, quoting=quoting
    )
    line = 1 + settings.skip
    for cells in reader:
        yield line, cells
        line = reader.line_num + 1 + settings.skip


def _is_filled(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


def _guess_separator(path: Path, text: str, settings: TableSettings) -> str:
    """Return the only separator that gives every row the same number of columns."""
    widths: dict[str, list[int]] = {}
    for mark in SEPARATORS:
        rows = _csv_rows(text, settings.model_copy(update={"separator": mark}))
        filled = (cells for _, cells in rows if _is_filled(cells))
        widths[mark] = [len(cells) for cells in islice(filled, SAMPLE_ROWS)]
    several = [mark for mark in SEPARATORS if widths[mark][0] > 1]
    expected = len(settings.header)
    fitting = [
        mark for mark in several if len(set(widths[mark])) == 1 and expected in (0, widths[mark][0])
    ]
    if len(fitting) > 1:
        marks = " and ".join(map(repr, fitting))
        raise UserError(f"{path}: both {marks} fit every row; set data.table.separator")
    default = several if len(several) == 1 else ["\t" if ".tsv" in path.suffixes else ","]
    return (fitting or default)[0]


def other_separator(names: list[str]) -> str | None:
    """Return a hint if the only column's name holds what may separate several."""
    marks = [mark for mark in SEPARATORS if len(names) == 1 and mark in names[0]]
    return f"if the separator is {marks[0]!r}, set data.table.separator" if marks else None


def _csv_error(
    path: Path, text: str, settings: TableSettings, names: list[str], reason: str
) -> UserError:
    """Say which row PyArrow could not parse."""
    kind = "data.table.header names" if settings.header else "the header has"
    mark = f"a cell with {settings.separator!r} must be quoted (data.table.quote)"
    hint = other_separator(names) or mark
    for line, cells in _csv_rows(text, settings):
        if _is_filled(cells) and len(cells) != len(names):
            counts = f"has {len(cells)} cells, {kind} {len(names)}"
            return UserError(f"{path}: row {line}: {counts}; {hint}")
    return UserError(f"{path}: is not valid CSV: {' '.join(reason.split())}")


def _refuse_open_quote(path: Path, text: str, settings: TableSettings) -> None:
    """Raise UserError if a quote that opens a cell is never closed: it took the rest in."""
    if not settings.quote or text.count(settings.quote) % 2 == 0:
        return
    lines = [line for line, _ in _csv_rows(text, settings)]
    rest = "".join(islice(StringIO(text, newline=""), lines[-1] - 1, None))
    reader = csv.reader(
        StringIO(rest, newline=""),
        delimiter=settings.separator or ",",
        quotechar=settings.quote,
        strict=True,
    )
    try:
        list(reader)
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise UserError(
                f"{path}: row {lines[-1]}: a quote that opens a cell is never closed; "
                "data.table.quote=null reads quotes as text"
            ) from None


def _read_parquet(path: Path, raw: bytes, settings: TableSettings) -> Content:
    try:
        table = parquet.read_table(BytesIO(raw))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: is not valid Parquet: {' '.join(str(error).split())}") from None
    columns = [column.combine_chunks() for column in table.columns]
    named = list(zip(table.column_names, columns, strict=True))
    return Content(settings, named, list(range(1, len(table) + 1)))


def _json_array(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Yield the elements of an array and their places, from 1."""
    try:
        yield from enumerate(json.loads(text), start=1)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON: {error}") from None


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Yield the value of every line that is not blank, and its number."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}: row {number}: is not valid JSON: {error}") from None


def _from_json(
    path: Path, rows: Iterator[tuple[int, Any]], settings: TableSettings, notes: list[str]
) -> Content:
    """Turn objects into columns; a key that an object lacks is an empty cell."""
    places: list[int] = []
    objects: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for place, row in rows:
        if not isinstance(row, dict):
            reason = f"is {shown(json.dumps(row))}, must be an object, {{...}}"
            raise UserError(f"{path}: row {place}: {reason}")
        places.append(place)
        objects.append(row)
        names |= dict.fromkeys(row)
    columns = [(name, [row.get(name) for row in objects]) for name in names]
    return Content(settings, columns, places, notes)
