"""Columns of many predictions at once, written as the JSON texts of the log's rows."""

import json
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..arrays import Arrays

NOT_NUMBERS = "USO"  # kinds of arrays


class Columns(NamedTuple):
    """Values of items by name, and for each request its rows (start, stop) in them."""

    values: Arrays
    spans: list[tuple[int, int]]

    def to_json(self) -> list[str]:
        """Write the values of each request as `{"width":[3,4]}`."""
        if all(stop - start == 1 for start, stop in self.spans):
            return self._single_items()
        cells = {json.dumps(name): _cells(array) for name, array in self.values.items()}
        return [
            "{" + ",".join(f"{n}:[{','.join(c[start:stop])}]" for n, c in cells.items()) + "}"
            for start, stop in self.spans
        ]

    def _single_items(self) -> list[str]:
        """Do the same in a fifth of the time, where every request has one item."""
        rows = [start for start, _ in self.spans]
        columns, members = [], []
        for name, array in self.values.items():
            finite = array.dtype.kind not in NOT_NUMBERS and bool(np.isfinite(array).all())
            columns.append(array[rows].tolist() if finite else _cells(array[rows]))
            members.append(json.dumps(name).replace("%", "%%") + (":[%.6g]" if finite else ":[%s]"))
        template = "{" + ",".join(members) + "}"
        return [template % row for row in zip(*columns, strict=True)]


def _cells(array: np.ndarray) -> list[str]:
    """Write each value as JSON, numbers with the digits that the bundle's reference keeps."""
    if array.dtype.kind in NOT_NUMBERS:
        return [_quoted(value) for value in array.tolist()]
    return [f"{x:.6g}" if math.isfinite(x) else "null" for x in array.tolist()]


_quoted = lru_cache(1024)(json.dumps)
