"""Read tables of items in bounded blocks, and write tables: Parquet, CSV, JSON lines."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import IO, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import pyarrow as pa
from pyarrow import parquet
from pydantic_core import to_jsonable_python

from ..config import UserError
from ..task.contract import Item

FORMATS = (".parquet", ".csv", ".jsonl")
BLOCK_ROWS, BLOCK_BYTES = 4096, 2**21  # of a block that is read
GROUP_ROWS, GROUP_BYTES = 2**16, 2**25  # of a row group that is written
MAX_CELL = 2**27  # characters of a cell in CSV
REST = "\0rest"  # a column of JSON: what else a JSON line holds

T = TypeVar("T")


class Block(NamedTuple):
    """Consecutive rows."""

    rows: int
    columns: dict[str, Any]  # by the item's field: an Arrow array or a list of JSON values
    kept: dict[str, Any]  # the other columns, Arrow
    errors: dict[int, str]  # by the row's number in the block: why it cannot be read
    share: float  # of the file, that has been read with this block


class Source(NamedTuple):
    """A file to be scored."""

    path: Path
    names: Mapping[str, str]  # the columns of the item's fields, where they have another name
    paths: str | None  # the column of files' paths
    added: tuple[str, ...]  # names of the output's new columns

    def blocks(self, start: int) -> Iterator[Block]:
        """Read from row `start`, counted from 0. Raises UserError."""
        number = FORMATS.index(self.path.suffix)
        try:
            yield from (_read_parquet, _read_csv, _read_jsonl)[number](self, start)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: is not UTF-8 text: {error.reason}") from None
        except (pa.ArrowException, csv.Error) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{self.path}: cannot be read: {reason}") from None

    def inputs(self, columns: list[str]) -> dict[str, str]:
        """Return the column of each field of the item. Raises UserError if one is missing."""
        self.check_names(columns)
        has = f"the file has {', '.join(map(repr, columns[:20]))}"
        if doubled := [name for name in columns if columns.count(name) > 1]:
            raise UserError(f"{self.path}: column {doubled[0]!r} occurs twice; rename one")
        for name in (*self.names.values(), *filter(None, [self.paths])):
            if name not in columns:
                raise UserError(f"{self.path}: column {name!r} is missing; {has}")
        fields = {name: self.names.get(name, name) for name in Item.model_fields}
        found = {name: column for name, column in fields.items() if column in columns}
        if self.paths:
            return found | {self.paths: self.paths}
        required = [name for name, field in Item.model_fields.items() if field.is_required()]
        if missing := [name for name in required if name not in found] or [*fields][: not found]:
            hint = f"--column {missing[0]}=NAME names another, --paths NAME one of files' paths"
            raise UserError(f"{self.path}: column {missing[0]!r} is missing; {has}; {hint}")
        return found

    def check_names(self, columns: Iterable[str]) -> None:
        """Raise UserError if a column to keep has the name of one that is added."""
        for name in filter(self.keeps, columns):
            if name in self.added:
                hint = "rename it, or give the predictions other names, as with --prefix predicted_"
                raise UserError(f"{self.path}: column {name!r} is also one of a prediction: {hint}")

    def keeps(self, column: str) -> bool:
        """Return whether a column is carried into the output: those of inputs are not."""
        fields = {self.names.get(name, name) for name in Item.model_fields}
        return column not in fields or column == self.paths


def _read_parquet(source: Source, start: int) -> Iterator[Block]:
    # Not pre-buffered, which would read whole row groups into memory.
    with parquet.ParquetFile(source.path, pre_buffer=False, buffer_size=2**20) as file:
        names, metadata = file.schema_arrow.names, file.metadata
        inputs = source.inputs(names)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        row_bytes = sum(group.total_byte_size for group in groups) // max(1, metadata.num_rows)
        rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, row_bytes)))
        first = end = 0
        while first < len(groups) and end + groups[first].num_rows <= start:
            end += groups[first].num_rows
            first += 1
        for batch in file.iter_batches(rows, row_groups=range(first, len(groups))):
            begin, end = end, end + len(batch)
            if end > start:
                part = batch.slice(max(0, start - begin))
                columns = {name: part.column(column) for name, column in inputs.items()}
                kept = {name: part.column(name) for name in names if source.keeps(name)}
                yield Block(len(part), columns, kept, {}, end / metadata.num_rows)


def _read_csv(source: Source, start: int) -> Iterator[Block]:
    """Read cells as text, but as JSON for fields of the item that are no text."""
    csv.field_size_limit(MAX_CELL)
    with source.path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        inputs = source.inputs(header)
        rows = islice(filter(None, reader), start, None)  # without empty lines
        for block, share in _blocks(rows, lambda row: sum(map(len, row)), file):
            errors = {
                number: f"the row has {len(row)} cells, the header {len(header)}"
                for number, row in enumerate(block)
                if len(row) != len(header)
            }
            cells = [dict(zip(header, row, strict=False)) for row in block]
            columns = {
                name: [_value(row.get(column), name) for row in cells]
                for name, column in inputs.items()
            }
            kept = {
                name: pa.array([row.get(name) for row in cells], pa.string())
                for name in header
                if source.keeps(name)
            }
            yield Block(len(block), columns, kept, errors, share)


def _value(cell: str | None, field: str) -> Any:
    """Return a cell's value for JSON; an empty cell has none."""
    schema = Item.model_fields.get(field)
    kind = schema.annotation if schema else str
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if cell and str not in kinds:
        with suppress(ValueError, RecursionError):  # the field's own type will refuse the text
            return json.loads(cell)
    return cell or None


def _read_jsonl(source: Source, start: int) -> Iterator[Block]:
    with source.path.open("rb") as file:
        lines = islice(filter(None, map(bytes.strip, file)), start, None)  # without empty lines
        for block, share in _blocks(lines, len, file):
            objects, errors = [], {}
            for number, line in enumerate(block):
                try:
                    objects.append(json.loads(line))
                    if not isinstance(objects[-1], dict):
                        raise ValueError("is not an object")
                except (ValueError, RecursionError) as error:
                    errors[number] = f"the line is not a JSON object: {error}"
                    objects[number:] = [{}]
            names = {name: source.names.get(name, name) for name in Item.model_fields}
            names |= {source.paths: source.paths} if source.paths else {}
            columns = {
                name: [one.get(column) for one in objects]
                for name, column in names.items()
                if any(column in one for one in objects)
            }
            source.check_names({name for one in objects for name in one})
            rest = [{k: v for k, v in one.items() if source.keeps(k)} for one in objects]
            kept = {REST: pa.array([json.dumps(one) for one in rest], pa.string())}
            yield Block(len(block), columns, kept, errors, share)


def _blocks(
    rows: Iterable[T], size: Callable[[T], int], file: IO[Any]
) -> Iterator[tuple[list[T], float]]:
    """Group the rows of a file; with each group comes the share of the file that was read."""
    binary = getattr(file, "buffer", file)
    end = max(1, Path(file.name).stat().st_size)
    block: list[T] = []
    block_bytes = 0
    for row in rows:
        block.append(row)
        block_bytes += size(row)
        if len(block) == BLOCK_ROWS or block_bytes > BLOCK_BYTES:
            yield block, min(1.0, binary.tell() / end)
            block, block_bytes = [], 0
    if block:
        yield block, 1.0


def write_tables(
    path: Path,
    suffix: str,
    schema: pa.Schema,
    read: Callable[[], Iterable[pa.Table]],
    about: Mapping[str, str],
) -> None:
    """Write tables of a schema as one file; `about` goes into Parquet's metadata."""
    if REST in schema.names and suffix != ".jsonl":
        schema, tables = _without_rest(schema, read)
    else:
        tables = read()
    if suffix == ".parquet":
        # Dictionaries of probabilities, all different, cost 60 MB and half of the time.
        options: dict[str, Any] = {"use_dictionary": False, "compression": "zstd"}
        with parquet.ParquetWriter(path, schema.with_metadata(about), **options) as writer:
            for table in _regrouped(tables):
                writer.write_table(table)
        return
    # In a JSON string the replacement of what is no Unicode is the escape that stood there.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if suffix == ".csv":
            writer.writerow(schema.names)
        for row in (row for table in tables for row in table.to_pylist(maps_as_pydicts="lossy")):
            if suffix == ".csv":
                writer.writerow(map(_text, row.values()))
            else:
                rest = json.loads(row.pop(REST, "{}"))
                file.write(json.dumps(rest | _plain(row), ensure_ascii=False) + "\n")


def _without_rest(
    schema: pa.Schema, read: Callable[[], Iterable[pa.Table]]
) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Give each member that JSON lines held beside the inputs a column of text."""
    names: dict[str, None] = {}
    for table in read():
        for cell in table[REST].to_pylist():
            names |= dict.fromkeys(json.loads(cell))
    schema = schema.remove(schema.get_field_index(REST))
    texts = pa.schema([(name, pa.string()) for name in names])

    def tables() -> Iterator[pa.Table]:
        for table in read():
            rows = [json.loads(cell) for cell in table[REST].to_pylist()]
            made = [pa.array([_text(row.get(name)) for row in rows], pa.string()) for name in names]
            yield pa.table([*made, *table.drop_columns(REST).columns], pa.schema([*texts, *schema]))

    return pa.schema([*texts, *schema]), tables()


def _regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join tables to row groups that are not tiny and that memory takes."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        rows, size = (sum(getattr(t, kind) for t in waiting) for kind in ("num_rows", "nbytes"))
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _text(value: Any) -> str | None:
    """Return a value as text: text as it is, else as JSON."""
    plain = _plain(value)
    if plain is not None and not isinstance(plain, str):
        return json.dumps(plain, ensure_ascii=False)
    return plain and plain.encode(errors="replace").decode()


def _plain(value: Any) -> Any:
    """Turn times, bytes and the like into what JSON holds."""
    return to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64")
