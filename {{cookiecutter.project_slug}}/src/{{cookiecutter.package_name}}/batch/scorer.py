"""Predict tables of items with a bundle: columns in, columns out."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from ..arrays import concatenate, in_chunks
from ..bundle.load import Bundle, load_bundle
from ..config import UserError
from ..files import first_error
from ..interfaces import InvalidItem
from ..task.contract import Item, Prediction, item_from_file

pc: Any = pyarrow.compute  # makes its functions on import, unseen by type checkers

MAX_BATCH = 256  # rows per call of ONNX Runtime; more gain nothing and take memory
MAX_ELEMENTS = 2**19  # of the largest input or output of a call
MAX_BYTES = 2**21  # of items, as JSON, in memory at a time

Column = Any  # an Arrow array, or a list of JSON values with None for "not given"


class FilePaths(NamedTuple):
    """A column of paths of files, each of which is an item as for `predict FILE`."""

    column: str
    folder: Path  # that relative paths start from


class Scorer:
    """Predict tables of items with a bundle.

    Tables have a column per field of `Item`, results a column per field of `Prediction`, and
    `error`: why a row could not be predicted, else null. Ray Data and the like take the class.
    """

    def __init__(
        self, bundle: Bundle | Path, batch_size: int | None = None, paths: FilePaths | None = None
    ) -> None:
        self.bundle = load_bundle(bundle) if isinstance(bundle, Path) else bundle
        self.batch_size, self.paths = batch_size or _batch_size(self.bundle), paths
        fields = Prediction.model_fields.items()
        types = [(name, arrow_type(field.annotation)) for name, field in fields]
        self.schema = pa.schema([*types, ("error", pa.string())])

    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace the columns that are fields of `Item` by the predictions. Raises UserError."""
        table = table.combine_chunks()
        kept = {name: table[name] for name in table.column_names if name not in Item.model_fields}
        if taken := kept.keys() & set(self.schema.names):
            raise UserError(f"column {min(taken)!r} is also one of a prediction: rename it")
        columns = {name: _array(table[name]) for name in table.column_names if name not in kept}
        predicted = self.predict(columns, table.num_rows)
        return pa.table({**kept, **{name: predicted[name] for name in predicted.column_names}})

    def predict(
        self, columns: Mapping[str, Column], count: int, errors: Mapping[int, str] | None = None
    ) -> pa.Table:
        """Predict `count` rows; those with a number in `errors` are known to be invalid."""
        if (fast := self._predict_columns(columns)) is None:
            return self._predict_items(columns, range(count), errors or {})
        table, valid = fast
        if valid.all():
            return table
        invalid = np.flatnonzero(~valid)  # the items know the reason
        order = np.argsort(np.concatenate([np.flatnonzero(valid), invalid]))
        rest = self._predict_items(columns, invalid.tolist(), {})
        return pa.concat_tables([table, rest]).take(pa.array(order))

    def _predict_columns(self, columns: Mapping[str, Column]) -> tuple[pa.Table, np.ndarray] | None:
        """Predict the valid rows without an object per row; None if columns do not allow it."""
        found = ((name, dense(column)) for name, column in columns.items())
        arrays = {name: array for name, array in found if array is not None}
        if self.paths or len(arrays) < len(columns):
            return None
        encoded = self.bundle.contract.encode_columns(arrays)
        if encoded is None or not encoded[1].any():
            return None
        inputs, valid = encoded
        outputs = concatenate(map(self.bundle.run, in_chunks(inputs, self.batch_size)))
        decoded = self.bundle.contract.decode_columns(outputs)
        made = [_to_arrow(decoded[field.name], field.type) for field in list(self.schema)[:-1]]
        return pa.table([*made, pa.nulls(valid.sum(), pa.string())], self.schema), valid

    def _predict_items(
        self, columns: Mapping[str, Column], rows: Sequence[int], errors: Mapping[int, str]
    ) -> pa.Table:
        """Predict rows through an `Item` each, in the given order of rows."""
        results: dict[int, BaseModel | str] = dict(errors)
        group: dict[int, Item] = {}
        size = 0

        def predict() -> None:
            results.update(zip(group, self._predict_group(list(group.values())), strict=True))
            group.clear()

        for row, body in self._bodies(columns, [row for row in rows if row not in errors]):
            if isinstance(body, str):
                results[row] = body
                continue
            try:
                group[row] = Item.model_validate_json(body)
            except ValidationError as error:
                results[row] = first_error(error)
                continue
            size += len(body)
            if len(group) == self.batch_size or size > MAX_BYTES:
                predict()
                size = 0
        predict()
        ordered = [results[row] for row in rows]
        dumped = [None if isinstance(one, str) else one.model_dump() for one in ordered]
        made = [
            pa.array([one and one[field.name] for one in dumped], field.type)
            for field in list(self.schema)[:-1]
        ]
        texts = [one if isinstance(one, str) else None for one in ordered]
        return pa.table([*made, pa.array(texts, pa.string())], self.schema)

    def _bodies(
        self, columns: Mapping[str, Column], rows: Sequence[int]
    ) -> Iterable[tuple[int, bytes | str]]:
        """Return each row's item as the JSON of a request, or as text why it has none.

        The shortest first, so that batches are padded little; files one by one, as they may be big.
        """
        cells = {name: _json_values(column) for name, column in columns.items()}

        def body(row: int) -> bytes | str:
            given = {name: values[row] for name, values in cells.items()}
            given = {name: value for name, value in given.items() if value is not None}
            try:
                if self.paths:
                    name = given.pop(self.paths.column, "")
                    if not isinstance(name, str) or not name:
                        return f"{self.paths.column}: is not the path of a file"
                    given = item_from_file(self.paths.folder / name) | given
                return to_json(given)
            except PydanticSerializationError:
                return "holds text that is not Unicode"
            except OSError as error:
                return f"{error.filename}: cannot be read: {error.strerror}"
            except (UserError, ValueError) as error:  # a path with NUL is a ValueError
                return str(error)

        bodies = ((row, body(row)) for row in rows)
        return bodies if self.paths else sorted(bodies, key=lambda pair: len(pair[1]))

    def _predict_group(self, items: list[Item]) -> list[BaseModel | str]:
        """Return a prediction or an error per item: a group that fails is halved until those that
        fail are alone, as in the server."""
        if not items:
            return []
        try:
            contract = self.bundle.contract
            return list(contract.decode(self.bundle.run(contract.encode(items)), items))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # whatever it is (a panic in Rust is no Exception)
            if half := len(items) // 2:
                return [*self._predict_group(items[:half]), *self._predict_group(items[half:])]
            return [f"{error.field}: {error}" if isinstance(error, InvalidItem) else repr(error)]


def _batch_size(bundle: Bundle) -> int:
    """Choose the rows per call by the size of a row's largest input or output."""
    signature = bundle.manifest.signature
    sizes = [
        math.prod(size for size in end.shape[1:] if isinstance(size, int))
        for end in (*signature.inputs, *signature.outputs)
    ]
    return max(1, min(MAX_BATCH, MAX_ELEMENTS // max(sizes)))


def dense(column: Column) -> np.ndarray | None:
    """Return a column as numbers (row, …); None if rows differ in shape or something is missing."""
    shape = []
    if not isinstance(column, pa.Array):
        return None
    size = len(column)
    while pa.types.is_nested(column.type):
        if not hasattr(column.type, "value_type") or column.null_count:
            return None
        lengths = pc.list_value_length(column)
        bounds = pc.min_max(lengths).as_py()
        if bounds["min"] != bounds["max"] or not bounds["min"]:
            return None
        shape.append(bounds["min"])
        column = column.flatten()
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not is_number or column.null_count:
        return None
    return column.to_numpy(zero_copy_only=False).reshape(size, *shape)


def arrow_type(annotation: Any) -> pa.DataType:
    """Return the Arrow type of values with this type of a pydantic field."""
    simple = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    if annotation in simple:
        return simple[annotation]
    arguments = [one for one in get_args(annotation) if one is not NoneType]
    origin = get_origin(annotation)
    if origin is list:
        return pa.list_(arrow_type(arguments[0]))
    if origin is dict:
        return pa.map_(arrow_type(arguments[0]), arrow_type(arguments[1]))
    if origin in (Union, UnionType) and len(arguments) == 1:
        return arrow_type(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return pa.struct([(name, arrow_type(field.annotation)) for name, field in fields])
    raise TypeError(f"{annotation}: has no Arrow type; add it to arrow_type")


def _to_arrow(values: Any, type_: pa.DataType) -> pa.Array:
    """Turn a decoded column (row,), or columns by key for a map, into Arrow."""
    if not pa.types.is_map(type_):
        return pa.array(values, type_)
    keys, items = pa.array([*values], type_.key_type), np.stack([*values.values()], axis=1)
    count, width = items.shape
    places = pa.array(np.tile(np.arange(width, dtype=np.int32), count))
    offsets = pa.array(np.arange(0, (count + 1) * width, width, dtype=np.int32))
    return pa.MapArray.from_arrays(offsets, keys.take(places), pa.array(items.ravel()))


def _json_values(column: Column) -> Sequence[Any]:
    """Return a column as values for JSON; bytes become base64, as in a request."""
    if not isinstance(column, pa.Array):
        return column
    values = column.to_pylist(maps_as_pydicts="lossy")  # of equal keys the last one, as in JSON
    return [base64.b64encode(v).decode() if isinstance(v, bytes) else v for v in values]


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
