"""Prometheus metrics of the prediction log, feedback, drift and live quality."""

from functools import partial

from .metrics import BY_MODEL, GaugeSet, ServerMetrics

LOST_REASONS = ("full", "refused", "stopped", "broken")


class LogMetrics:
    """The metrics that need the prediction log, added to the server's."""

    def __init__(self, metrics: ServerMetrics) -> None:
        labels = ("outcome", "bucket", *BY_MODEL)
        self.predicted = metrics.counter("predicted", "Items by predicted class or bucket", labels)
        self.rows = metrics.counter("prediction_log_rows", "Rows written")()
        self.lost = metrics.counter("prediction_log_lost", "Rows lost", ("reason",))
        self.errors = metrics.counter("prediction_log_errors", "Failed writes")()
        self.waiting = metrics.gauge("prediction_log_waiting", "Rows not written yet")
        text = "Age of the oldest row not written yet"
        self.lag = metrics.gauge("prediction_log_lag_seconds", text, "livemax")
        self.feedback = metrics.counter("feedback", "Labels received", BY_MODEL)

        # Every worker measures the same log, so the newest value is everybody's.
        measured = partial(metrics.gauge_set, mode="mostrecent")
        feature, metric = ("version", "feature"), ("metric", *BY_MODEL)
        self.drift_psi = measured("drift_psi", "Population stability index", feature)
        text = "p-value, adjusted for the number of features"
        self.drift_p = measured("drift_p_value", text, feature)
        text = "1 if the drift is large and significant"
        self.drift_detected = measured("drift_detected", text, feature)
        text = "Rows that drift was measured on"
        self.drift_rows = measured("drift_window_rows", text, ("version",))
        self.quality_mean = measured("quality_mean", "Mean score of labelled predictions", metric)
        text = "Loss of quality since training, as a share"
        self.quality_drop = measured("quality_drop_ratio", text, metric)
        text = "Score on the test split after training"
        self.quality_expected = measured("quality_expected", text, metric[:2])
        text = "Labels that quality was measured on"
        self.quality_labels = measured("quality_labels", text, BY_MODEL)
        self.gauge_sets = [value for value in vars(self).values() if isinstance(value, GaugeSet)]
        for reason in LOST_REASONS:  # so that a rate begins with the first loss, not the second
            self.lost(reason)
        self.waiting.set(0)
        self.lag.set(0)
