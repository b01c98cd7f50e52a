"""Values of many predictions at once, measured by few calls of NumPy."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..arrays import Arrays
from ..store.columns import NOT_NUMBERS
from .scheduler import BatchResult, RequestResult

MAX_BUCKETS = 20  # classes of a prediction that metrics distinguish


class Buckets:
    """Classes or bins of a prediction's values: a metric's label may take only a few values."""

    def __init__(self, distribution: Mapping[str, Any]) -> None:
        """Create the buckets of a distribution of the bundle's reference."""
        counts = distribution.get("counts", {})
        self.names: set[str] = set()
        self.edges = np.array(distribution.get("edges", []))
        if isinstance(counts, dict):
            self.names = set(sorted(counts, key=lambda name: -counts[name])[:MAX_BUCKETS])
        edges = [f"{edge:.3g}" for edge in self.edges]
        inner = [f"{low} to {high}" for low, high in pairwise(edges)]
        self.bins = [f"below {edges[0]}", *inner, f"above {edges[-1]}"] if edges else []

    def count(self, values: np.ndarray) -> Counter[str]:
        """Count the values in each bucket."""
        if values.dtype.kind in NOT_NUMBERS or not self.bins:
            names = values.astype(str).tolist()
            return Counter(name if name in self.names else "other" for name in names)
        places = np.searchsorted(self.edges, values, side="right")
        places[values == self.edges[-1]] -= 1  # the largest known value belongs to the last bin
        return Counter(self.bins[place] for place in places.tolist())


def measure_batches(
    results: Sequence[RequestResult],
    arrays: Callable[[BatchResult], Arrays],
    measure: Callable[[Arrays], Arrays],
) -> Arrays:
    """Apply `measure` to the arrays of the results' batches, with few calls for many batches.

    Returns values (item,) in the order of the results.
    """
    # 1. Group the batches by the shape of an item: a group is measured at once.
    by_shape: dict[object, dict[int, BatchResult]] = {}
    for key, batch in {id(result.batch): result.batch for result in results}.items():
        shape = tuple([array.shape[1:] for array in arrays(batch).values()])
        by_shape.setdefault(shape, {})[key] = batch
    # 2. Measure, and remember where each batch begins.
    columns: dict[str, list[np.ndarray]] = {}
    first_rows, rows = {}, 0
    for batches in by_shape.values():
        parts = [arrays(batch) for batch in batches.values()]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for name, values in measure(joined).items():
            columns.setdefault(name, []).append(np.asarray(values))
        for key, batch in batches.items():
            first_rows[key] = rows
            rows += batch.items
    # 3. Take the rows of the requests: a batch may hold others too.
    places: list[int] = []
    for result in results:
        first = first_rows[id(result.batch)]
        places += range(first + result.start, first + result.stop)
    return {name: np.concatenate(parts)[places] for name, parts in columns.items()}
