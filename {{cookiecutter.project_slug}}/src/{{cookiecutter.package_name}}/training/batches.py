"""The batches that networks get; what is not on the device yet is prepared ahead of use."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from ..arrays import Arrays, LazyArray, row_count

SHARE = 0.5  # of a GPU's free memory that the examples may take; the network needs the rest
AHEAD = 2  # batches in memory besides the one in use and the one that is being made

T = TypeVar("T")
U = TypeVar("U")


class BatchSource:
    """The training examples: on the device if they fit, else sent or made batch by batch.

    On a CPU the columns share the memory of their arrays.
    """

    def __init__(self, arrays: Arrays, device: torch.device) -> None:
        self.device, self.count = device, row_count(arrays)
        in_memory = [a for a in arrays.values() if not isinstance(a, LazyArray)]
        on_host = sum(array.nbytes for array in in_memory) > room(device)
        self.lazy = {k: v for k, v in arrays.items() if on_host or isinstance(v, LazyArray)}
        self.tensors = {
            name: torch.from_numpy(array).to(device)
            for name, array in arrays.items()
            if name not in self.lazy
        }

    def batches(self, order: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
        """Yield the columns of each of these batches of rows (n,), in this order."""
        columns = make_ahead(self._make, order) if self.lazy else ({} for _ in order)
        for rows, made in zip(order, columns, strict=True):
            on_device = rows.to(self.device)
            gathered = {name: tensor[on_device] for name, tensor in self.tensors.items()}
            moved = {name: t.to(self.device, non_blocking=True) for name, t in made.items()}
            yield moved | gathered

    def _make(self, rows: Tensor) -> dict[str, Tensor]:
        places = rows.numpy()
        made = {name: torch.from_numpy(array[places]) for name, array in self.lazy.items()}
        if self.device.type == "cuda":  # only from pinned memory is the copy asynchronous
            made = {name: tensor.pin_memory() for name, tensor in made.items()}
        return made


def room(device: torch.device) -> float:
    """Return how many bytes of examples may be on a device at once."""
    return SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf


def split_batches(arrays: Arrays, names: Iterable[str], size: int) -> Iterator[list[Tensor]]:
    """Yield the named columns of consecutive rows, `size` at a time."""
    columns = [arrays[name] for name in names]

    def make(start: int) -> list[Tensor]:
        return [torch.from_numpy(column[start : start + size]) for column in columns]

    starts = range(0, len(columns[0]), size)
    lazy = any(isinstance(column, LazyArray) for column in columns)
    return make_ahead(make, starts) if lazy else map(make, starts)


def make_ahead(make: Callable[[T], U], jobs: Iterable[T]) -> Iterator[U]:
    """Yield `make` of each job in order; a thread works on the next ones meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending = deque()
        for job in jobs:
            pending.append(pool.submit(make, job))
            if len(pending) > AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
