"""Prometheus metrics, by model version and variant.

With several workers the official client keeps the values in files that all workers share; which of
both it does is settled when it is imported, by the variable PROMETHEUS_MULTIPROC_DIR.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .models import ServedModel

NO_MODEL = "none"
disable_created_metrics()  # a second series for each, which nothing here reads
MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class BulkHistogram(Histogram):
    """A histogram that takes many values at once, as they are counted off a request's path."""

    def observe_many(self, values: list[float]) -> None:
        """Like `observe` for each of the values."""
        self._sum.inc(sum(values))
        for place, count in Tally(bisect_left(self._upper_bounds, v) for v in values).items():
            self._buckets[place].inc(count)


class ServerMetrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by_model = ["version", "variant"]
        self.requests = self._counter(
            "http_requests",
            "Answered requests; status 4xx and 5xx are errors",
            ["route", "status", *by_model],
        )
        self.seconds = cache(
            BulkHistogram(
                "http_request_seconds",
                "Time to answer a request",
                ["route", *by_model],
                buckets=SECONDS,
                registry=self.registry,
            ).labels
        )
        self.batch_items = cache(
            Histogram(
                "batch_items",
                "Items that a model answered at once",
                by_model,
                buckets=ITEMS,
                registry=self.registry,
            ).labels
        )
        self.in_progress = self._gauge("requests_in_progress", "Requests not answered yet", [])
        self.predictions = self._counter("predictions", "Items predicted", by_model)
        self.predicted = self._counter(
            "predicted", "Items by what was answered", ["outcome", "bucket", *by_model]
        )
        self.shadow_dropped = self._count(
            "shadow_dropped", "Requests that the shadow left out, being busy"
        )

        self._model = self._gauge(
            "model_info", "1 for a model in use", ["name", *by_model], "livemax"
        )
        self._created = self._gauge(
            "model_created_timestamp_seconds", "When a model was made", by_model, "livemax"
        )
        self.loaded = self._gauge("model_loaded", "1 when there is a champion", [], "livemin")
        self.refused = self._count(
            "deployments_refused", "Times that a deployment could not be loaded"
        )

        self.log_rows = self._count("prediction_log_rows", "Rows written")
        self.log_lost = self._counter("prediction_log_lost", "Rows not written", ["reason"])
        self.log_errors = self._count("prediction_log_errors", "Writes that failed")
        self.log_waiting = self._gauge("prediction_log_waiting", "Rows not written yet", [])
        self.log_lag = self._gauge(
            "prediction_log_lag_seconds", "Age of the oldest row not written yet", [], "livemax"
        )
        self.feedback = self._counter("feedback", "Labels received", by_model)

        drift = ["version", "feature"]
        newest = "mostrecent"
        self.drift_psi = self._gauge("drift_psi", "Population stability index", drift, newest)
        self.drift_p = self._gauge("drift_p_value", "Adjusted p-value", drift, newest)
        self.drift_detected = self._gauge("drift_detected", "1: large, no chance", drift, newest)
        self.drift_rows = self._gauge(
            "drift_window_rows", "Rows that drift was measured on", ["version"], newest
        )
        metric = ["metric", *by_model]
        self.quality_mean = self._gauge("quality_mean", "Mean score by feedback", metric, newest)
        self.quality_drop = self._gauge(
            "quality_drop_ratio", "Worse than after training by this share", metric, newest
        )
        self.quality_expected = self._gauge(
            "quality_expected", "As measured after training", ["metric", "version"], newest
        )
        self.quality_labels = self._gauge(
            "quality_labels", "Labels that the quality rests on", by_model, newest
        )
        # So that a rate begins with the first loss and not with the second.
        for reason in ("full", "refused", "stopped", "broken"):
            self.log_lost(reason)
        self.loaded.set(0)
        self.in_progress.set(0)
        self.log_waiting.set(0)
        self.log_lag.set(0)
        self._collectors()

    def request(self, route: str, status: int, version: str, variant: str, seconds: float) -> None:
        """Count one answered request."""
        self.requests(route, str(status), version, variant).inc()
        self.seconds(route, version, variant).observe(seconds)

    def serving(self, models: Iterable[ServedModel]) -> None:
        """From now on these models answer."""
        clear_gauge(self._model)
        clear_gauge(self._created)
        for model in models:
            names = model.version, model.variant
            self._model.labels(model.bundle.name, *names).set(1)
            self._created.labels(*names).set(model.created)
        self.loaded.set(1)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        if folder := os.environ.get(MULTIPROC_VARIABLE):
            for pid in _pids(Path(folder)):
                if not Path(f"/proc/{pid}").exists():
                    mark_process_dead(pid, folder)
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, labels: list[str]) -> Callable[..., Counter]:
        """The counter of some labels, looked up once and kept."""
        return cache(Counter(name, text, labels, registry=self.registry).labels)

    def _count(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: list[str], mode: str = "livesum") -> Gauge:
        return Gauge(
            name,
            text,
            labels,
            multiprocess_mode=mode,  # pyright: ignore[reportArgumentType]
            registry=self.registry,
        )

    def _collectors(self) -> None:
        if folder := os.environ.get(MULTIPROC_VARIABLE):
            self.registry = CollectorRegistry()
            MultiProcessCollector(self.registry, folder)
            self.registry.register(Workers(Path(folder)))
            return
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)


class Workers(Collector):
    """What ProcessCollector tells, summed over the workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterator[Metric]:
        whole: dict[str, Metric] = {}
        for pid in _pids(self.folder):
            source = ProcessCollector(pid=lambda pid=pid: pid, registry=CollectorRegistry())
            for metric in source.collect():
                known = whole.setdefault(metric.name, metric)
                if known is not metric and metric.name != "process_start_time_seconds":
                    for place, sample in enumerate(metric.samples):
                        value = known.samples[place].value + sample.value
                        known.samples[place] = known.samples[place]._replace(value=value)
        yield from whole.values()


def clear_gauge(gauge: Gauge) -> None:
    """Drop the values of all labels. In shared files they cannot be dropped: there they become
    "not a number", which no alert fires on and no panel draws."""
    if not os.environ.get(MULTIPROC_VARIABLE):
        gauge.clear()
        return
    for labels in list(gauge._metrics):
        gauge.labels(*labels).set(math.nan)


def _pids(folder: Path) -> set[str]:
    """The workers with values of a moment in the shared files; the counts of dead ones stay."""
    return {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}
