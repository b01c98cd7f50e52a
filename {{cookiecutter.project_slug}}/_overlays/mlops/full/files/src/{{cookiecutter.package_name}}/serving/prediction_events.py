"""Turn prediction events into metrics and rows of the log, off the request's path.

A request only appends an event. A thread aggregates many of them into counts and rows, and another
one (log_writer.py) writes the rows; neither can make a request fail. A killed process loses the
events of the last `log_seconds` and the rows that the database has not accepted yet; SIGTERM loses
nothing that can be written within `drain_seconds`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from random import random

from fastapi import FastAPI

from ..store.row import PredictionRow
from .columns import Buckets, items_json, measure_batches
from .feedback import add_feedback_route
from .log_metrics import LogMetrics
from .log_writer import LogWriter
from .logs import logger
from .metrics import ServerMetrics
from .models import SHADOW, ModelManager, ServedModel
from .monitor import monitor_models
from .predict import PATH, PredictionEvent
from .wiring import ServerSettings

FLUSH_EVENTS = 500  # pending events that are aggregated before `log_seconds` have passed


class PredictionEvents:
    """Log predictions, take feedback about them, measure drift and quality from both."""

    def __init__(
        self, settings: ServerSettings, models: ModelManager, metrics: ServerMetrics
    ) -> None:
        self.settings, self.models, self.metrics = settings, models, metrics
        self.log_metrics = LogMetrics(metrics)
        self.log = LogWriter(settings, self.log_metrics)
        shares = {"all": 1.0, "sampled": settings.log_sample, "none": 0.0}
        self._input_share = shares[settings.log_inputs]
        self._events: deque[PredictionEvent] = deque()
        self._buckets: dict[tuple[str, str], Buckets] = {}
        self._aggregating = threading.Lock()
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._flush_loop, name="events", daemon=True)

    def add(self, event: PredictionEvent) -> None:
        self._events.append(event)
        if len(self._events) == FLUSH_EVENTS:
            self._wake.set()

    def add_routes(self, api: FastAPI) -> None:
        if self.settings.feedback:
            add_feedback_route(api, self)

    def start(self) -> None:
        self.log.start()
        self._thread.start()
        seconds = self.settings.monitor_seconds
        monitor = monitor_models(self.models, self.log, self.log_metrics, seconds)
        self._monitor = asyncio.create_task(monitor)

    async def stop(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._monitor.cancel()
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, seconds)
        await asyncio.to_thread(self.log.stop, deadline - time.monotonic())

    def flush(self, seconds: float) -> bool:
        """Wait until all earlier events are written; False when `seconds` are not enough."""
        self.update_metrics()
        return self.log.wait_until_written(seconds)

    def update_metrics(self) -> None:
        """Turn pending events into counts and rows. Safe in any thread."""
        with self._aggregating:
            by_model: dict[int, list[PredictionEvent]] = {}
            for _ in range(len(self._events)):
                event = self._events.popleft()
                by_model.setdefault(id(event.model), []).append(event)
            for events in by_model.values():
                try:
                    self._aggregate(events[0].model, events)
                except Exception:  # of these events; the next ones are counted again
                    self.log_metrics.lost("broken").inc(len(events))
                    logger.exception("predictions were not counted")
            self.log.update_metrics()

    def _aggregate(self, model: ServedModel, events: list[PredictionEvent]) -> None:
        # 1. Count requests, seconds and items.
        names = model.version, model.variant
        if model.variant != SHADOW:
            self.metrics.requests(PATH, "200", *names).inc(len(events))
            observe = self.metrics.seconds(PATH, *names).observe
            for event in events:
                observe(event.seconds)
        items = [event.result.stop - event.result.start for event in events]
        self.metrics.predictions(*names).inc(sum(items))
        # 2. Count predictions by class or bucket.
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
        # 3. Write rows.
        features = measure_batches(results, lambda batch: batch.inputs, contract.features)
        measured = zip(events, items, features.to_json(), stats.to_json(), strict=True)
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
                for event, count, feature_json, stats_json in measured
            ]
        )

    def _flush_loop(self) -> None:
        stopping = False
        while not stopping:
            self._wake.wait(self.settings.log_seconds)
            self._wake.clear()
            stopping = self._stopping  # read before the last aggregation
            self.update_metrics()
