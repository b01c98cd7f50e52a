"""Items per second of ONNX Runtime alone: a session of one thread for each core, nothing else.

    python onnx_alone.py SECONDS

Prints [items per second on all cores in the best batch size, milliseconds of one item on one core].
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

FOLDER = Path(os.environ["MODEL"])


def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"]
    )


def rate(batch: int, threads: int, seconds: float) -> float:
    """Items per second."""
    image = np.random.default_rng(0).random((batch, 1, 8, 8), np.float32)

    def work(own: onnxruntime.InferenceSession) -> int:
        done = 0
        while time.perf_counter() < end:
            own.run(None, {own.get_inputs()[0].name: image})
            done += batch
        return done

    sessions = [session() for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        end = start + seconds
        return sum(pool.map(work, sessions)) / (time.perf_counter() - start)


budget = float(sys.argv[1]) / 4
cores = len(os.sched_getaffinity(0))
best = max(rate(batch, cores, budget) for batch in (1, 8, 32))
print(json.dumps([best, 1000 / rate(1, 1, budget)]))
