"""Count predictions and append them to the spool, off the request's path.

A request only appends an event. Every `log_seconds` a thread turns the events into metrics and one
chunk of the spool for each model; the collector (collector.py), a second process, does the rest.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import lru_cache
from hashlib import blake2b
from random import random
from typing import Any

import numpy as np
from fastapi import FastAPI

from ..store import spool
from .columns import Buckets, measure_batches
from .feedback import add_feedback_route
from .logs import logger
from .metrics import BY_MODEL, ServerMetrics
from .models import SHADOW, ModelManager
from .predict import PATH, PredictionEvent
from .wiring import COLLECTOR_METRICS, ServerSettings, collector_problem, spool_folder

FLUSH_EVENTS = 500  # pending events that are written before `log_seconds` have passed
UNWRITTEN_BYTES = 32 * 2**20  # of chunks that are held in memory while the disk is full
LOST_REASONS = ("full", "broken", "stopped")
REPEATED_SECONDS = 60.0  # between log lines about the same problem


class PredictionLog:
    """Log predictions and take feedback about them."""

    def __init__(
        self, settings: ServerSettings, models: ModelManager, metrics: ServerMetrics
    ) -> None:
        self.settings, self.models, self.metrics = settings, models, metrics
        self.enabled = settings.database_url != "none"
        self.folder = spool_folder(settings)
        self.spool = spool.SpoolWriter(self.folder, settings.log_megabytes * 2**20)
        shares = {"all": 1.0, "sampled": settings.log_sample, "none": 0.0}
        self._input_share = shares[settings.log_inputs]
        # 1. Metrics of this process; the collector has its own.
        labels = ("outcome", "bucket", *BY_MODEL)
        self.predicted = metrics.counter("predicted", "Items by predicted class or bucket", labels)
        self.lost = metrics.counter("prediction_log_lost", "Rows lost", ("reason",))
        for reason in LOST_REASONS:  # so that a rate begins with the first loss, not the second
            self.lost(reason)
        self._buckets: dict[tuple[str, str], Buckets] = {}
        # 2. What waits, guarded by a lock
        self._events: deque[PredictionEvent] = deque()
        self._unwritten: deque[tuple[int, bytes]] = deque()  # rows and chunk
        self._flushing = threading.Lock()
        self._problem: str | None = None
        self._reported = -REPEATED_SECONDS
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._flush_loop, name="log", daemon=True)

    def add(self, event: PredictionEvent) -> None:
        self._events.append(event)
        if len(self._events) == FLUSH_EVENTS:
            self._wake.set()

    def add_routes(self, api: FastAPI) -> None:
        if self.settings.feedback:
            add_feedback_route(api, self)

    def start(self) -> None:
        self._thread.start()

    async def stop(self, seconds: float) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(seconds)  # nothing else runs any more
        if left := sum(rows for rows, _ in self._unwritten) + len(self._events):
            self._lose(left, "stopped", self._problem or "the spool was not written in time")
        self.spool.close()

    def flush(self) -> None:
        """Turn pending events into counts and chunks of the spool. Safe in any thread."""
        with self._flushing:
            groups: dict[tuple[int, str | None], list[PredictionEvent]] = {}
            for _ in range(len(self._events)):
                event = self._events.popleft()
                groups.setdefault((id(event.model), event.test), []).append(event)
            for events in groups.values():
                try:
                    chunk = self._count(events)
                    if self.enabled:
                        self._unwritten.append((len(events), chunk.pack(len(events), events[0].at)))
                except Exception:  # of these events; the next ones are counted again
                    self.lost("broken").inc(len(events))
                    logger.exception("predictions were not counted")
            self._write()

    def update_metrics(self) -> bytes:
        self.flush()
        if not self.enabled:
            return b""
        # Measured now and by whoever is asked: all workers share one spool.
        waiting, now = spool.waiting(self.folder), time.time()
        with self._flushing:
            rows = waiting.rows + sum(rows for rows, _ in self._unwritten)
        lag = max(0.0, now - waiting.oldest) if waiting.oldest is not None else 0.0
        lines = [
            _gauge("prediction_log_waiting", "Rows not in the database yet", rows),
            _gauge("prediction_log_waiting_bytes", "Their size in the spool", waiting.size),
            _gauge("prediction_log_lag_seconds", "Age of the oldest of them", lag),
            _gauge(
                "collector_up", "1 if a collector reads the spool", spool.collected(self.folder)
            ),
        ]
        try:
            return "".join(lines).encode() + (self.folder / COLLECTOR_METRICS).read_bytes()
        except OSError:  # it has not started yet
            return "".join(lines).encode()

    @property
    def problem(self) -> str | None:
        """Why predictions are not logged."""
        return (self._problem or collector_problem(self.folder)) if self.enabled else None

    def _count(self, events: list[PredictionEvent]) -> spool.Chunk:
        """Count one model's predictions, and describe them as a chunk."""
        model, names = events[0].model, (events[0].model.version, events[0].model.variant)
        results = [event.result for event in events]
        items = [result.stop - result.start for result in results]
        traced = [event for event in events if event.trace is not None]
        # 1. Count requests, seconds, items, and predictions by class or bucket.
        if model.variant != SHADOW:
            self.metrics.requests(PATH, "200", *names).inc(len(events))
            observe = self.metrics.seconds(PATH, *names).observe
            for event in events:
                observe(event.seconds)
            for event in traced:
                self.metrics.add_exemplar(PATH, *names, event.seconds, event.trace)
        self.metrics.predictions(*names).inc(sum(items))
        contract = model.bundle.contract
        stats = measure_batches(results, lambda batch: batch.outputs, contract.prediction_stats)
        for name, values in stats.items():
            key = model.bundle.digest, name
            if key not in self._buckets:
                self._buckets[key] = Buckets(model.bundle.reference["predictions"].get(name, {}))
            for bucket, count in self._buckets[key].count(values).items():
                self.predicted(name, bucket, *names).inc(count)
        # 2. Describe them.
        texts: dict[str, list[Any]] = {
            "request_id": [event.request_id for event in events],
            "client_id": [event.client_id for event in events],
            "unit": [event.unit for event in events],
            "caller": [_hashed(event.caller) for event in events],
            "asker": [event.asker for event in events],
            "items": items,
        }
        if traced:
            traces = [event.trace for event in events]
            texts["trace_id"] = [trace.trace_id if trace else None for trace in traces]
        numbers = {
            "at": np.array([event.at for event in events]),
            "milliseconds": np.array([event.seconds * 1000 for event in events]),
        }
        if self.enabled:
            features = measure_batches(results, lambda batch: batch.inputs, contract.features)
            for kind, measured in (("features", features), ("outcomes", stats)):
                for name, values in measured.items():
                    if values.dtype.kind in "USO":
                        texts[f"{kind}.{name}"] = values.tolist()
                    else:
                        numbers[f"{kind}.{name}"] = values
        share = self._input_share
        bodies = [event.body if share == 1 or random() < share else None for event in events]
        answers: list[bytes | None] = [result.body for result in results]
        head = [*names, events[0].test]
        return spool.Chunk(head, texts, numbers, {"body": bodies, "output": answers})

    def _write(self) -> None:
        """Append what waits to the spool; what finds no room is lost."""
        if not self._unwritten:
            return
        try:
            while self._unwritten:
                self.spool.append(self._unwritten[0][1])
                self._unwritten.popleft()
        except spool.SpoolFull:
            reason = (
                f"{self.folder} holds {self.settings.log_megabytes} MiB, the most that may wait"
            )
            self._lose(self._drop_all(), "full", reason)
        except OSError as error:
            reason = f"{self.folder}: {error.strerror or error}"
            if sum(len(chunk) for _, chunk in self._unwritten) > UNWRITTEN_BYTES:
                self._lose(self._drop_all(), "full", reason)
            else:
                self._report("predictions wait in memory", reason)
        else:
            if self._problem is not None:
                logger.info("predictions are logged again")
            self._problem = None

    def _drop_all(self) -> int:
        rows = sum(rows for rows, _ in self._unwritten)
        self._unwritten.clear()
        return rows

    def _lose(self, rows: int, kind: str, reason: str) -> None:
        self.lost(kind).inc(rows)
        self._report("prediction log lost rows", reason, rows=rows)

    def _report(self, message: str, reason: str, **fields: Any) -> None:
        """Log a problem, again only after a while."""
        again = reason == self._problem and time.monotonic() - self._reported < REPEATED_SECONDS
        self._problem = reason
        if not again or self._stopping:
            self._reported = time.monotonic()
            logger.error(message, extra={"fields": {"reason": reason, **fields}})

    def _flush_loop(self) -> None:
        stopping = False
        while not stopping:
            self._wake.wait(self.settings.log_seconds)
            self._wake.clear()
            stopping = self._stopping  # read before the last flush
            self.flush()


@lru_cache(4096)
def _hashed(caller: str) -> str | None:
    return blake2b(caller.encode(), digest_size=8).hexdigest() if caller else None


def _gauge(name: str, text: str, value: float) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {float(value)}\n"
