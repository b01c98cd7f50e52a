"""Turn answered requests into metrics and rows of the log, off the request's path.

A request only appends one tuple. A thread aggregates these into counts and rows for many requests
at a time, and another one (log_writer.py) writes the rows. No request ever fails by either.

At risk when the process is killed: what was answered within the last `log_seconds`, and what the
database has not taken yet. SIGTERM loses nothing that can be written within `drain_seconds`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from random import random
from typing import TYPE_CHECKING

from ..store.row import PredictionRow
from .columns import Buckets, items_json, measure_batches
from .log_metrics import LogMetrics
from .log_writer import LogWriter
from .logs import logger
from .metrics import ServerMetrics
from .models import SHADOW, ServedModel
from .predict import PATH, PredictionEvent

if TYPE_CHECKING:
    from .wiring import ServerSettings

FLUSH_EVENTS = 500  # pending events that are aggregated before `log_seconds` have passed


class PredictionEvents:
    """Collect events, count them and hand them to the log."""

    def __init__(
        self, settings: ServerSettings, metrics: ServerMetrics, log_metrics: LogMetrics
    ) -> None:
        self.settings, self.metrics, self.log_metrics = settings, metrics, log_metrics
        self.log = LogWriter(settings, log_metrics)
        shares = {"all": 1.0, "sampled": settings.log_sample, "none": 0.0}
        self._input_share = shares[settings.log_inputs]
        self._events: deque[PredictionEvent] = deque()
        self._buckets: dict[tuple[str, str], Buckets] = {}
        self._aggregating = threading.Lock()
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._flush_loop, name="events", daemon=True)

    def add(self, event: PredictionEvent) -> None:
        """Take an event; called on the request's path."""
        self._events.append(event)
        if len(self._events) == FLUSH_EVENTS:
            self._wake.set()

    def start(self) -> None:
        """Start to aggregate and to write."""
        self.log.start()
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Aggregate and write what is pending, within `seconds`."""
        deadline = time.monotonic() + seconds
        self._stopping = True
        self._wake.set()
        self._thread.join(seconds)
        self.log.stop(deadline - time.monotonic())

    def flush(self, seconds: float) -> bool:
        """Wait until all earlier events are written; False when `seconds` are not enough."""
        self.aggregate()
        return self.log.wait_until_written(seconds)

    def aggregate(self) -> None:
        """Turn pending events into counts and rows. Safe in any thread."""
        with self._aggregating:
            events = [self._events.popleft() for _ in range(len(self._events))]
            by_model: dict[int, list[PredictionEvent]] = {}
            for event in events:
                by_model.setdefault(id(event.model), []).append(event)
            for events in by_model.values():
                try:
                    self._aggregate(events[0].model, events)
                except Exception:  # of these events; the next ones are counted again
                    self.log_metrics.lost("broken").inc(len(events))
                    logger.exception("predictions were not counted")
            self.log.update_metrics()

    def _aggregate(self, model: ServedModel, events: list[PredictionEvent]) -> None:
        """Count events of one model, and hand them to the log as rows."""
        # 1. Requests, seconds and items
        names = model.version, model.variant
        if model.variant != SHADOW:
            self.metrics.requests(PATH, "200", *names).inc(len(events))
            observe = self.metrics.seconds(PATH, *names).observe
            for event in events:
                observe(event.seconds)
        items = [event.result.stop - event.result.start for event in events]
        self.metrics.predictions(*names).inc(sum(items))
        # 2. Predictions by class or bucket
        contract = model.bundle.contract
        results = [event.result for event in events]
        stats = measure_batches(results, lambda batch: batch.outputs, contract.prediction_stats)
        for name, values in stats.values.items():
            key = model.bundle.digest, name
            if key not in self._buckets:
                self._buckets[key] = Buckets(model.reference["predictions"].get(name, {}))
            for bucket, count in self._buckets[key].count(values).items():
                self.log_metrics.predicted(name, bucket, *names).inc(count)
        if not self.log.enabled:
            return
        # 3. Rows
        features = measure_batches(results, lambda batch: batch.inputs, contract.features)
        self.log.enqueue(
            [
                PredictionRow(
                    event.request_id,
                    event.at,
                    *names,
                    event.test,
                    event.unit,
                    count,
                    event.seconds * 1000,
                    feature_json,
                    stats_json,
                    event.result.body.decode(),
                    items_json(event.body) if random() < self._input_share else None,
                )
                for event, count, feature_json, stats_json in zip(
                    events, items, features.to_json(), stats.to_json(), strict=True
                )
            ]
        )

    def _flush_loop(self) -> None:
        stopping = False
        while not stopping:
            self._wake.wait(self.settings.log_seconds)
            self._wake.clear()
            stopping = self._stopping  # read before the last aggregation
            self.aggregate()
