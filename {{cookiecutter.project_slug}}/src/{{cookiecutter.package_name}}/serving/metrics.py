"""Prometheus metrics of requests and models, by model version and variant.

With several workers, prometheus-client keeps the values in files that all workers share. It decides
when it is imported, by the environment variable PROMETHEUS_MULTIPROC_DIR.
"""

from __future__ import annotations

import math
import os
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import prometheus_client as prometheus
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from .context import TraceContext

MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
RESTARTS = "worker-restarts.txt"  # the supervisor's count, in that folder
WORKER_RESTARTS = ("worker_restarts", "Workers that died and were replaced")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
SECONDS_LABELS = [floatToGoString(bound) for bound in (*SECONDS, math.inf)]
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MultiprocessMode = Literal["livesum", "livemax", "livemin"]  # over workers
BY_MODEL = ("version", "variant")
Exemplars = dict[tuple[str, ...], Exemplar]  # by route, version, variant and bucket
prometheus.disable_created_metrics()  # a second series for each metric, which nothing here reads


class GaugeSet:
    """A gauge whose series are replaced together, so that none of an old model stays."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._series: set[tuple[str, ...]] = set()

    def replace(self, values: Mapping[tuple[str, ...], float]) -> None:
        """Set the values by their labels and drop all other series."""
        for labels in self._series - values.keys():
            if os.environ.get(MULTIPROC_VARIABLE):
                # Series in shared files cannot be dropped. No alert fires on "not a number", no
                # panel draws it.
                self._gauge.labels(*labels).set(math.nan)
            else:
                self._gauge.remove(*labels)
                self._series.remove(labels)
        self._series |= values.keys()
        for labels, value in values.items():
            self._gauge.labels(*labels).set(value)


class ServerMetrics:
    """The metrics of one server, in a registry of their own.

    Counters and histograms are called with label values: `requests(route, status, …).inc()`.
    """

    def __init__(self) -> None:
        self._registry = self._exported = prometheus.CollectorRegistry()
        if folder := os.environ.get(MULTIPROC_VARIABLE):
            self._exported = prometheus.CollectorRegistry()
            MultiProcessCollector(self._exported, folder)
            self._exported.register(WorkerProcesses(Path(folder)))
        else:
            prometheus.ProcessCollector(registry=self._registry)
            prometheus.PlatformCollector(registry=self._registry)
            prometheus.GCCollector(registry=self._registry)
            self.counter(*WORKER_RESTARTS)()  # stays 0: nobody restarts a server's only process

        self._exemplars: Exemplars = {}
        text = "Answered requests; status 4xx and 5xx are errors"
        self.requests = self.counter("http_requests", text, ("route", "status", *BY_MODEL))
        self.seconds = self.histogram(
            "http_request_seconds", "Time to answer a request", ("route", *BY_MODEL), SECONDS
        )
        text = "Items in a batch that a model ran"
        self.batch_items = self.histogram("batch_items", text, BY_MODEL, ITEMS)
        self.in_progress = self.gauge("requests_in_progress", "Requests not answered yet")
        self.predictions = self.counter("predictions", "Items predicted", BY_MODEL)
        text = "Requests that the shadow did not answer, being busy or failing"
        self.shadow_dropped = self.counter("shadow_dropped", text)()
        self.model_info = self.gauge_set(
            "model_info", "1 for a loaded model", ("name", *BY_MODEL), "livemax"
        )
        self.model_created = self.gauge_set(
            "model_created_timestamp_seconds", "Time a model was created", BY_MODEL, "livemax"
        )
        self.model_loaded = self.gauge("model_loaded", "1 if there is a champion", "livemin")
        self.refused = self.counter("deployments_refused", "Deployments that could not be loaded")()
        self.model_loaded.set(0)
        self.in_progress.set(0)

    def register(self, collector: Collector) -> None:
        """Add metrics that are the same in all workers."""
        self._exported.register(collector)

    def request(
        self,
        route: str,
        status: int,
        version: str,
        variant: str,
        seconds: float,
        trace: TraceContext | None,
    ) -> None:
        """Count one answered request."""
        self.requests(route, str(status), version, variant).inc()
        self.seconds(route, version, variant).observe(seconds)
        self.add_exemplar(route, version, variant, seconds, trace)

    def add_exemplar(
        self, route: str, version: str, variant: str, seconds: float, trace: TraceContext | None
    ) -> None:
        """Remember a request's trace, if it is recorded, as the example of its latency's bucket."""
        if trace is not None and trace.sampled:
            bucket = SECONDS_LABELS[bisect_left(SECONDS, seconds)]
            exemplar = Exemplar({"trace_id": trace.trace_id}, seconds, time.time())
            self._exemplars[route, version, variant, bucket] = exemplar

    def render(self, others: bytes = b"", as_openmetrics: bool = False) -> bytes:
        """Write all metrics, and those of other processes, in Prometheus' text format.

        OpenMetrics differs in the names of counters' families, and has exemplars: with several
        workers, those of the one that is asked.
        """
        if folder := os.environ.get(MULTIPROC_VARIABLE):
            # Elsewhere the supervisor notices, when it has replaced the worker.
            for pid in _worker_pids(Path(folder)) if Path("/proc/self").exists() else ():
                if not Path("/proc", pid).exists():
                    mark_process_dead(pid, folder)
        if not as_openmetrics:
            return prometheus.generate_latest(self._exported) + others
        own = openmetrics.generate_latest(WithExemplars(self._exported, self._exemplars))
        others = re.sub(rb"(?m)^(# (?:HELP|TYPE) \w+)_total ", rb"\1 ", others)
        return own.removesuffix(b"# EOF\n") + others + b"# EOF\n"

    def counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Callable[..., Counter]:
        """Add a counter; the function returns the series of the given label values."""
        counter = Counter(name, text, labels, registry=self._registry)
        return cache(counter.labels) if labels else lambda: counter

    def histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Callable[..., Histogram]:
        """Add a histogram; the function returns the series of the given label values."""
        return cache(Histogram(name, text, labels, buckets=buckets, registry=self._registry).labels)

    def gauge(self, name: str, text: str, mode: MultiprocessMode = "livesum") -> Gauge:
        return Gauge(name, text, registry=self._registry, multiprocess_mode=mode)

    def gauge_set(
        self, name: str, text: str, labels: tuple[str, ...], mode: MultiprocessMode
    ) -> GaugeSet:
        return GaugeSet(Gauge(name, text, labels, registry=self._registry, multiprocess_mode=mode))


class WithExemplars(Collector):
    """Add exemplars to the latencies; prometheus-client itself has none for several workers."""

    def __init__(self, metrics: Collector, exemplars: Exemplars) -> None:
        self._metrics, self._exemplars = metrics, exemplars

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics.collect():
            if metric.name == "http_request_seconds":
                metric.samples = [
                    sample._replace(exemplar=self._exemplars.get(_bucket(sample.labels)))
                    for sample in metric.samples
                ]
            yield metric


def _bucket(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple([labels.get(name, "") for name in ("route", *BY_MODEL, "le")])


class WorkerProcesses(Collector):
    """The metrics of ProcessCollector, summed over the workers, and how many were replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        totals: dict[str, Metric] = {}
        for pid in _worker_pids(self._folder):
            registry = prometheus.CollectorRegistry()
            process = prometheus.ProcessCollector(pid=lambda pid=pid: pid, registry=registry)
            for metric in process.collect():
                total = totals.setdefault(metric.name, metric)
                if total is not metric and metric.name != "process_start_time_seconds":
                    pairs = zip(total.samples, metric.samples, strict=True)
                    total.samples = [a._replace(value=a.value + b.value) for a, b in pairs]
        yield from totals.values()
        if (path := self._folder / RESTARTS).exists():  # not with a supervisor of somebody else
            yield CounterMetricFamily(*WORKER_RESTARTS, value=float(path.read_text()))


def _worker_pids(folder: Path) -> set[str]:
    """The workers that have files of live gauges; the counts of ended workers have other files."""
    return {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}
