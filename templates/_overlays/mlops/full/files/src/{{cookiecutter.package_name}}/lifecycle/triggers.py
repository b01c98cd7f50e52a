"""Decide whether to retrain. Every check is recorded, whether it fired or not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from ..base_settings import BaseSettings, RetrainSettings
from ..bundle import deployment
from ..bundle.load import Bundle
from ..monitoring import online
from ..store.database import Database
from ..store.queries import LabelledExample
from . import labels

DECIDED, COMPARED = "decide", "gate"  # actions in the history


@dataclass(frozen=True)
class RetrainSignals:
    """What the log, the deployment and the history say about the champion."""

    drifted: list[str]  # features and predictions
    judged: int  # features and predictions with enough rows
    metric: str
    drop: float | None  # online against training, relative; None without labels
    labels: int  # that `drop` is measured on
    new_labels: int  # labelled items that were never collected
    min_new: int  # fewest new labels that can be split
    days: float  # since a model was trained or compared with the champion
    tested: str | None  # version of the challenger


class Check(NamedTuple):
    """A trigger, its value and threshold, and the reason to retrain: empty unless it fired."""

    trigger: str
    value: str
    threshold: str
    reason: str


@dataclass(frozen=True)
class RetrainDecision:
    """The outcome with its checks; `obstacle` is why to wait in spite of reasons."""

    outcome: Literal["retrain", "not needed", "waits for labels", "a test is running"]
    reasons: list[str]
    checks: list[Check] = field(repr=False)
    obstacle: str | None = None

    @property
    def sentence(self) -> str:
        reasons = "; ".join(self.reasons)
        if self.obstacle:
            start = f"{reasons}, but " if reasons else ""
            return f"not retraining yet: {start}{self.obstacle}"
        return f"{self.outcome}: {reasons or 'no trigger fired'}"

    def record(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "checks": {c.trigger: c.value for c in self.checks}}

    def table(self) -> list[list[str]]:
        """Return rows for people, the header first."""
        head = ["Trigger", "Value", "Threshold", "Fired"]
        return [head, *([*check[:3], "yes" if check.reason else "no"] for check in self.checks)]


def collect_signals(
    settings: BaseSettings, champion: Bundle, database: Database, log: Sequence[LabelledExample]
) -> RetrainSignals:
    """Measure drift, quality, new labels (in `log`) and age of the deployed champion."""
    folder = settings.paths.deployment
    deployed = deployment.read_deployment(folder)
    drift = online.measure_drift(database, champion.reference, version=champion.version)
    manifests = {champion.version: champion.manifest}
    qualities = online.measure_quality(database, champion.contract, manifests)
    quality = next((row for row in qualities if row[:2] == (champion.version, "champion")), None)
    collected = labels.read_collected(settings.paths.feedback)
    history = deployment.read_history(folder)
    compared = [line["at"] for line in history if line["action"] == COMPARED]
    newest = max(map(datetime.fromisoformat, [champion.manifest.created_at, *compared]))
    return RetrainSignals(
        drifted=[row.feature for row in drift if row.drifted],
        judged=sum(row.judged for row in drift),
        metric=champion.contract.SCORE.name,
        drop=quality.drop if quality else None,
        labels=quality.labels if quality else 0,
        new_labels=len(labels.uncollected(log, collected)),
        min_new=labels.min_new_rows(bool(collected)),
        days=(datetime.now(UTC) - newest).total_seconds() / 86400,
        tested=deployed.challenger and deployed.challenger.version,
    )


def decide(
    signals: RetrainSignals, rules: RetrainSettings, if_needed: bool, force: bool = False
) -> RetrainDecision:
    """Decide; without `if_needed` no trigger need fire, `force` disregards a running A/B test.

    Age alone needs no labels, the other triggers wait for some to learn from.
    """
    # 1. Check each trigger.
    drifted, metric, drop = ", ".join(signals.drifted), signals.metric, signals.drop
    poor = drop is not None and drop > rules.quality_drop and signals.labels >= rules.least_labels
    quality = "no labels" if drop is None else f"{drop:.1%} on {signals.labels} labels"
    threshold = f"{rules.quality_drop:.0%} on {rules.least_labels} labels"
    worse = f"{metric} is {drop:.1%} worse than in training" if poor else ""
    count, limit = signals.new_labels, rules.new_labels
    reached = f"{count} new labels" if count >= limit else ""
    aged = signals.days > rules.max_days
    old = f"the newest model is {signals.days:.0f} days old" if aged else ""
    none = "none" if signals.judged else "too few rows to judge"
    checks = [
        Check("drifted", drifted or none, "any", f"drift in {drifted}" if drifted else ""),
        Check(f"{metric} worse by", quality, threshold, worse),
        Check("new labels", str(count), str(limit), reached),
        Check("days old", f"{signals.days:.1f}", f"{rules.max_days:g}", old),
    ]
    # 2. Decide.
    reasons = [check.reason for check in checks if check.reason]
    if signals.tested is not None and not force:
        testing = f"the A/B test of {signals.tested} is still running"
        return RetrainDecision("a test is running", reasons, checks, testing)
    if not if_needed:
        return RetrainDecision("retrain", ["by hand", *reasons], checks)
    if not reasons:
        return RetrainDecision("not needed", [], checks)
    needed = max(rules.least_labels, signals.min_new)
    if count < needed and not aged:
        lack = f"only {count} of the {needed} new labels needed"
        return RetrainDecision("waits for labels", reasons, checks, lack)
    return RetrainDecision("retrain", reasons, checks)
