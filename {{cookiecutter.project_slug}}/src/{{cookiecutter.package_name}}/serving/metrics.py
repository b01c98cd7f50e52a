"""Prometheus metrics, by model version. Children are looked up once and kept."""

from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

NO_MODEL = "none"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = Counter(
            "http_requests",
            "Answered requests; status 4xx and 5xx are errors",
            ["route", "status", "version"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "http_request_seconds",
            "Time to answer a request",
            ["route", "version"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._predictions = Counter(
            "predictions", "Items predicted", ["version"], registry=self.registry
        )
        self._model = Gauge(
            "model_info",
            "1 for the model that answers",
            ["name", "version"],
            registry=self.registry,
        )
        self.refused = Counter(
            "deployments_refused",
            "Times that a deployment could not be loaded",
            registry=self.registry,
        )
        self.requests = cache(self._requests.labels)
        self.seconds = cache(self._seconds.labels)
        self.predictions = cache(self._predictions.labels)

    def request(self, route: str, status: int, version: str, seconds: float) -> None:
        """Count an answered request."""
        self.requests(route, str(status), version).inc()
        self.seconds(route, version).observe(seconds)

    def serving(self, name: str, version: str) -> None:
        """From now on this model answers."""
        self._model.clear()
        self._model.labels(name, version).set(1)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
