"""Drift and live quality as metrics: looked at every `monitor_seconds`, from the prediction log.

Every worker looks by itself; they read the same log and so say the same.
"""

import asyncio
from typing import TYPE_CHECKING

from .logs import logger
from .metrics import ServerMetrics, clear_gauge
from .models import CHAMPION, ModelManager, ServedModel
from .prediction_events import PredictionEvents

if TYPE_CHECKING:
    from ..monitoring.drift import FeatureDrift


async def watch_metrics(
    engine: ModelManager, recorder: PredictionEvents, metrics: ServerMetrics, seconds: float
) -> None:
    """Measure again and again until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        if recorder.logs and engine.models():
            await asyncio.to_thread(_try, engine, recorder, metrics)


def _try(engine: ModelManager, recorder: PredictionEvents, metrics: ServerMetrics) -> None:
    from ..store.database import DatabaseError

    try:
        update_gauges(engine, recorder, metrics)
    except DatabaseError as error:  # the log's own metrics and alerts tell of it
        logger.debug("monitoring waits", extra={"fields": {"reason": str(error)}})
    except Exception:  # of this look; the next one comes
        logger.exception("drift and quality were not measured")


def update_gauges(engine: ModelManager, recorder: PredictionEvents, metrics: ServerMetrics) -> None:
    """Set the gauges of drift and quality, for the models in use. DatabaseError without the log."""
    from ..monitoring import online  # with the database's library, which starting does without

    database = recorder.database
    database.migrate()
    models = engine.models()
    for gauge in (
        metrics.drift_psi,
        metrics.drift_p,
        metrics.drift_detected,
        metrics.drift_rows,
        metrics.quality_mean,
        metrics.quality_drop,
        metrics.quality_expected,
        metrics.quality_labels,
    ):
        clear_gauge(gauge)
    for model in models:
        _drift(
            model, online.measure_drift(database, model.reference, version=model.version), metrics
        )
    contract = next(m.bundle.contract for m in models if m.variant == CHAMPION)
    manifests = {model.version: model.bundle.manifest for model in models}
    for row in online.measure_quality(database, contract, manifests):
        if row.version not in manifests:
            continue
        metrics.quality_mean.labels(row.metric, row.version, row.variant).set(row.mean)
        metrics.quality_labels.labels(row.version, row.variant).set(row.labels)
        if row.expected is not None and row.drop is not None:
            metrics.quality_expected.labels(row.metric, row.version).set(row.expected)
            metrics.quality_drop.labels(row.metric, row.version, row.variant).set(row.drop)


def _drift(model: ServedModel, found: "list[FeatureDrift]", metrics: ServerMetrics) -> None:
    metrics.drift_rows.labels(model.version).set(max((row.rows for row in found), default=0))
    for row in found:
        if row.statistic:
            names = model.version, row.feature
            metrics.drift_psi.labels(*names).set(row.psi)
            metrics.drift_p.labels(*names).set(row.adjusted_p)
            metrics.drift_detected.labels(*names).set(row.drifted)
