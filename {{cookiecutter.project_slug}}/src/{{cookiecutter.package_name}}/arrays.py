"""Named columns of examples, in memory or made when they are needed."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np

HASHED_DECIMALS = 3  # a request's numbers were rounded on their way, so copies differ beyond these
CHUNK_BYTES = 2**26  # what reads all rows of lazy columns has this much of them in memory

# By name; the first axis counts the examples. An input of a split may be a LazyArray, which offers
# less than the array it stands for: code that meets splits uses only what both have.
Arrays = dict[str, np.ndarray]


class LazyArray(ABC):
    """Rows that are made when they are needed: windows of a series, images on disk.

    Like an array it has `shape`, `dtype`, `len` and `[rows]`, which returns rows in memory.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def __getitem__(self, rows: Any) -> np.ndarray:
        """Make the rows of an index, a slice or an array of indices."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> Self:
        """Select rows (n,) without making them."""

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Make all rows, for libraries; needs the memory for them."""
        return np.asarray(self[:], dtype)


class JoinedRows(LazyArray):
    """The rows of two columns of the same shape, one after the other."""

    def __init__(self, first: Any, second: Any, rows: np.ndarray | None = None) -> None:
        if first.shape[1:] != second.shape[1:]:
            raise ValueError(f"rows differ in shape: {first.shape[1:]} and {second.shape[1:]}")
        self.first, self.second, self.dtype = first, second, first.dtype
        self.rows = np.arange(len(first) + len(second)) if rows is None else rows
        self.shape = (len(self.rows), *first.shape[1:])

    def __getitem__(self, rows: Any) -> np.ndarray:
        places = np.atleast_1d(self.rows[rows])
        early = places < len(self.first)
        made = np.empty((len(places), *self.shape[1:]), self.dtype)
        made[early] = self.first[places[early]]
        made[~early] = self.second[places[~early] - len(self.first)]
        return made if np.ndim(self.rows[rows]) else made[0]

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(self.first, self.second, self.rows[rows])


def select_rows(arrays: Arrays, rows: np.ndarray) -> Arrays:
    """Select rows (n,) of every column; lazy ones stay lazy."""
    return {
        name: array.take(rows) if isinstance(array, LazyArray) else array[rows]
        for name, array in arrays.items()
    }


def evenly_spaced(rows: int, count: int) -> np.ndarray:
    """Choose `count` of so many rows, evenly spaced; the first and the last are among them."""
    return np.linspace(0, rows - 1, count).round().astype(int)


def in_chunks(arrays: Arrays, most: int | None = None) -> Iterator[Arrays]:
    """Yield consecutive rows of all columns, about CHUNK_BYTES but at most `most` rows each."""
    row_bytes = sum(a.dtype.itemsize * math.prod(a.shape[1:]) for a in arrays.values())
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    step = step if most is None else min(step, most)
    for start in range(0, row_count(arrays), step):
        yield {name: array[start : start + step] for name, array in arrays.items()}


def row_count(arrays: Arrays) -> int:
    """Count the rows, of which every column has the same number."""
    return len(next(iter(arrays.values())))


def concatenate(parts: Iterable[Arrays]) -> Arrays:
    """Concatenate columns of the same names."""
    blocks = list(parts)
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def hash_rows(arrays: Arrays) -> Iterator[bytes]:
    """Yield a hash of each row's content, without boolean arrays: flags are no content."""
    columns = {name: array for name, array in arrays.items() if array.dtype.kind != "b"}
    for chunk in in_chunks(columns):
        rounded = [
            array if array.dtype.kind in "iu" else array.round(HASHED_DECIMALS) + 0.0
            for array in chunk.values()
        ]
        for row in zip(*rounded, strict=True):
            yield hashlib.sha256(b"".join(np.asarray(value).tobytes() for value in row)).digest()


def random_holdout(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Split `count` rows at random; return those kept, in order, and a `share` of them.

    For data whose neighbouring rows are alike (one writer's digits, one library's texts), so that
    the last rows differ in kind from the others.
    """
    order = np.random.default_rng(0).permutation(count)
    kept = round((1 - share) * count)
    return np.sort(order[:kept]), order[kept:]


def join_rows(first: Arrays, second: Arrays, pad_value: int) -> Arrays:
    """Concatenate rows, padding the shorter ones of both with `pad_value`; lazy ones stay lazy."""
    joined: dict[str, Any] = {}
    for name, array in first.items():
        if isinstance(array, LazyArray):
            rows = second[name]
            rows = rows if isinstance(rows, LazyArray) else rows.astype(array.dtype)
            joined[name] = JoinedRows(array, rows)
            continue
        blocks = [array, second[name].astype(array.dtype)]
        shape = np.max([block.shape[1:] for block in blocks], axis=0).astype(int)
        for place, block in enumerate(blocks):
            widths = [(0, 0), *((0, missing) for missing in shape - block.shape[1:])]
            blocks[place] = np.pad(block, widths, constant_values=pad_value)
        joined[name] = np.concatenate(blocks)
    return joined
