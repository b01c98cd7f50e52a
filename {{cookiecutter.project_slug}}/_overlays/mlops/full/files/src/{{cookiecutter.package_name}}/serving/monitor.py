"""Drift and live quality as metrics, measured from the prediction log every `monitor_seconds`.

Every worker measures by itself. They read the same log, so they get the same values.
"""

import asyncio

from .log_metrics import LogMetrics
from .log_writer import LogWriter
from .logs import logger
from .metrics import GaugeSet
from .models import CHAMPION, ModelManager


async def monitor_models(
    models: ModelManager, log: LogWriter, metrics: LogMetrics, seconds: float
) -> None:
    """Measure every `seconds` until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        if log.enabled and models.active is not None:
            try:
                await asyncio.to_thread(update_gauges, models, log, metrics)
            except Exception as error:  # the next measurement may succeed
                from ..store.database import DatabaseError

                if isinstance(error, DatabaseError):  # the log's own metrics and alerts report it
                    logger.debug("monitoring waits", extra={"fields": {"reason": str(error)}})
                else:
                    logger.exception("drift and quality were not measured")


def update_gauges(models: ModelManager, log: LogWriter, metrics: LogMetrics) -> None:
    """Measure drift and quality of the models in use; DatabaseError when the log cannot be read."""
    from ..monitoring import online  # with the database's library, which a start does without

    database, loaded = log.database, models.loaded()
    database.migrate()
    values: dict[GaugeSet, dict[tuple[str, ...], float]] = {
        gauge: {} for gauge in metrics.gauge_sets
    }
    # 1. Drift of each model's inputs and predictions
    for model in loaded:
        drifts = online.measure_drift(database, model.reference, version=model.version)
        values[metrics.drift_rows][model.version,] = max((d.rows for d in drifts), default=0)
        for drift in drifts:
            if drift.statistic:
                labels = model.version, drift.feature
                values[metrics.drift_psi][labels] = drift.psi
                values[metrics.drift_p][labels] = drift.adjusted_p
                values[metrics.drift_detected][labels] = drift.drifted
    # 2. Quality by feedback
    contract = next(m.bundle.contract for m in loaded if m.variant == CHAMPION)
    manifests = {model.version: model.bundle.manifest for model in loaded}
    for row in online.measure_quality(database, contract, manifests):
        if row.version in manifests:
            names = row.version, row.variant
            values[metrics.quality_mean][row.metric, *names] = row.mean
            values[metrics.quality_labels][names] = row.labels
            if row.expected is not None and row.drop is not None:
                values[metrics.quality_expected][row.metric, row.version] = row.expected
                values[metrics.quality_drop][row.metric, *names] = row.drop
    # 3. Replace all gauges
    for gauge, series in values.items():
        gauge.replace(series)
