"""Metrics of the collector: rows, feedback, and what it measures of drift and quality."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import prometheus_client as prometheus
from prometheus_client import Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as MetricSource

from ..bundle import deployment as folder
from ..bundle.load import load_contract, load_reference, verify_bundle
from ..monitoring import online
from ..store.database import Database
from .metrics import BY_MODEL

FEATURE, METRIC = ("version", "feature"), ("metric", *BY_MODEL)
GAUGES = {  # measured together and replaced together: text and labels
    "drift_psi": ("Population stability index", FEATURE),
    "drift_p_value": ("p-value, adjusted for the number of features", FEATURE),
    "drift_detected": ("1 if the drift is large and significant", FEATURE),
    "drift_window_rows": ("Rows that drift was measured on", ("version",)),
    "quality_mean": ("Mean score of labelled predictions", METRIC),
    "quality_drop_ratio": ("Loss of quality since training, as a share", METRIC),
    "quality_expected": ("Score on the test split after training", METRIC[:2]),
    "quality_labels": ("Labels that quality was measured on", BY_MODEL),
}


class Measured(MetricSource):
    """Gauges that stay until the next measurement is complete."""

    def __init__(self) -> None:
        self.families: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        yield from self.families


class CollectorMetrics:
    """The metrics of one collector, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(namespace="collector", registry=registry)
        self.rows = Counter("prediction_log_rows", "Rows written", registry=registry)
        text = "Rows that the database refused, and damaged parts of the spool"
        self.refused = Counter("prediction_log_refused", text, ["reason"], registry=registry)
        for reason in ("refused", "damaged"):  # so that a rate begins with the first one
            self.refused.labels(reason)
        self.errors = Counter("prediction_log_errors", "Failed writes", registry=registry)
        self.feedback = Counter("feedback", "Labels received", BY_MODEL, registry=registry)
        self.measured = Measured()
        registry.register(self.measured)

    def render(self) -> bytes:
        """Write all metrics in Prometheus' text format."""
        return prometheus.generate_latest(self._registry)


def measured_families(database: Database, deployment_dir: Path) -> list[Metric]:
    """Measure drift and quality of the deployed models.

    Raises DatabaseError when the log cannot be read, BadBundle without a deployment.
    """
    values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in GAUGES}
    # 1. Drift of each model's inputs and predictions
    deployed = folder.read_deployment(deployment_dir)
    refs = [ref for ref in (deployed.champion, deployed.challenger) if ref is not None]
    paths = {ref.version: folder.bundle_path(deployment_dir, ref) for ref in refs}
    for version, path in paths.items():
        drifts = online.measure_drift(database, load_reference(path), version=version)
        values["drift_window_rows"][version,] = max((d.rows for d in drifts), default=0)
        for drift in drifts:
            if drift.statistic:
                labels = version, drift.feature
                values["drift_psi"][labels] = drift.psi
                values["drift_p_value"][labels] = drift.adjusted_p
                values["drift_detected"][labels] = drift.drifted
    # 2. Quality by feedback
    contract = load_contract(paths[deployed.champion.version])
    manifests = {version: verify_bundle(path) for version, path in paths.items()}
    for row in online.measure_quality(database, contract, manifests):
        if row.version in manifests:
            names = row.version, row.variant
            values["quality_mean"][row.metric, *names] = row.mean
            values["quality_labels"][names] = row.labels
            if row.expected is not None and row.drop is not None:
                values["quality_expected"][row.metric, row.version] = row.expected
                values["quality_drop_ratio"][row.metric, *names] = row.drop
    return [_family(name, series) for name, series in values.items()]


def _family(name: str, series: Mapping[tuple[str, ...], float]) -> Metric:
    text, labels = GAUGES[name]
    family = GaugeMetricFamily(name, text, labels=labels)
    for names, value in series.items():
        family.add_metric(names, value)
    return family
