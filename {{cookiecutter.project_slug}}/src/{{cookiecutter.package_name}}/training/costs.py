"""What a network costs: its size, and how long it takes to answer."""

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from torch import nn

from ..arrays import Arrays, row_count, select_rows
from .documents import Costs
from .fit import predict

REPEATS = 10


def measure(network: nn.Module, weights: Path, test: Arrays, batch_size: int) -> Costs:
    """Measure a network in PyTorch on this machine: milliseconds are medians of repeats."""

    def milliseconds(rows: int) -> float:
        batch = select_rows(test, np.arange(rows))
        predict(network, batch, batch_size)  # the first time is slower
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            predict(network, batch, batch_size)
            times.append(time.perf_counter() - start)
        return round(1000 * median(times), 3)

    batch_rows = min(batch_size, row_count(test))
    return Costs(
        parameters=sum(each.numel() for each in network.parameters()),
        weights_bytes=weights.stat().st_size,
        item_ms=milliseconds(1),
        batch_ms=milliseconds(batch_rows),
        batch_rows=batch_rows,
        peak_memory_bytes=_peak_memory(),
    )


def _peak_memory() -> int | None:
    """Return the most memory in bytes that this process has held so far."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
