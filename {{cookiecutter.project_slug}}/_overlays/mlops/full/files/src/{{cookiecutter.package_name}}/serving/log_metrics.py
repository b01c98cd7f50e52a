"""Prometheus metrics of the prediction log, feedback, drift and live quality."""

from .metrics import BY_MODEL, ServerMetrics

LOST_REASONS = ("full", "refused", "stopped", "broken")


class LogMetrics:
    """The metrics that need the prediction log, added to the server's."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self.predicted = metrics.counter(
            "predicted", "Items by predicted class or bucket", ("outcome", "bucket", *BY_MODEL)
        )
        self.rows = metrics.counter("prediction_log_rows", "Rows written")()
        self.lost = metrics.counter("prediction_log_lost", "Rows lost", ("reason",))
        self.errors = metrics.counter("prediction_log_errors", "Failed writes")()
        self.waiting = metrics.gauge("prediction_log_waiting", "Rows not written yet")
        self.lag = metrics.gauge(
            "prediction_log_lag_seconds", "Age of the oldest row not written yet", "livemax"
        )
        self.feedback = metrics.counter("feedback", "Labels received", BY_MODEL)

        # Every worker measures the same log, so the newest value is everybody's.
        feature, metric = ("version", "feature"), ("metric", *BY_MODEL)
        newest = "mostrecent"
        self.drift_psi = metrics.gauge_set(
            "drift_psi", "Population stability index", feature, newest
        )
        self.drift_p = metrics.gauge_set(
            "drift_p_value", "p-value, adjusted for the number of features", feature, newest
        )
        self.drift_detected = metrics.gauge_set(
            "drift_detected", "1 if the drift is large and significant", feature, newest
        )
        self.drift_rows = metrics.gauge_set(
            "drift_window_rows", "Rows that drift was measured on", ("version",), newest
        )
        self.quality_mean = metrics.gauge_set(
            "quality_mean", "Mean score of labelled predictions", metric, newest
        )
        self.quality_drop = metrics.gauge_set(
            "quality_drop_ratio", "Loss of quality since training, as a share", metric, newest
        )
        self.quality_expected = metrics.gauge_set(
            "quality_expected", "Score on the test split after training", metric[:2], newest
        )
        self.quality_labels = metrics.gauge_set(
            "quality_labels", "Labels that quality was measured on", BY_MODEL, newest
        )
        for reason in LOST_REASONS:  # so that a rate begins with the first loss, not the second
            self.lost(reason)
        self.waiting.set(0)
        self.lag.set(0)
