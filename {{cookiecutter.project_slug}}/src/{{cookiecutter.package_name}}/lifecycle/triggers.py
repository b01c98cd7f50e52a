"""Whether a new model is due, and why. Every question is answered, also those that said no."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..base_settings import RetrainSettings

Outcome = Literal["retrain", "not needed", "waits for labels", "a test is running"]
BY_HAND = "by hand"


@dataclass(frozen=True)
class RetrainSignals:
    """What is known of the champion when it is asked whether it needs a successor."""

    drifted: list[str]  # features and predictions
    compared: int  # of these that could be judged
    metric: str
    drop: float | None  # live against training, relative; None without labels
    labels: int  # that the live quality rests on
    fresh: int  # labelled answers that no training has been given yet
    fewest: int  # of these that can be divided into splits
    days: float  # since a model was made or tried
    test: str | None  # the version under test


class Check(NamedTuple):
    """One question with its answer."""

    question: str
    found: str
    limit: str
    reason: str | None  # set when the answer asks for a new model


@dataclass(frozen=True)
class Decision:
    """The outcome, and the answers that led to it."""

    outcome: Outcome
    reasons: list[str]
    checks: list[Check] = field(repr=False)

    @property
    def sentence(self) -> str:
        """Outcome and reasons in words."""
        return f"{self.outcome}: {'; '.join(self.reasons) or 'no reason was found'}"

    def record(self) -> dict[str, Any]:
        """What the history keeps beside the sentence."""
        return {"outcome": self.outcome, "checks": {c.question: c.found for c in self.checks}}

    def table(self) -> list[list[str]]:
        """Rows for people."""
        head = ["Question", "Found", "Limit", "Reason to retrain"]
        return [head, *([*check[:3], "yes" if check.reason else "no"] for check in self.checks)]


def decide(
    facts: RetrainSignals, rules: RetrainSettings, if_needed: bool, force: bool = False
) -> Decision:
    """What to do. Age alone needs no labels; the other reasons wait until there are some to learn
    from. Without `if_needed` the wish is a reason; `force` disregards a running test."""
    checks = [_drift(facts), _quality(facts, rules), _labels(facts, rules), _age(facts, rules)]
    reasons = [check.reason for check in checks if check.reason]
    if facts.test is not None and not force:
        return Decision("a test is running", [f"{facts.test} is under test", *reasons], checks)
    if not if_needed:
        return Decision("retrain", [BY_HAND, *reasons], checks)
    if not reasons:
        return Decision("not needed", [], checks)
    aged = checks[-1].reason is not None
    least = max(rules.least_labels, facts.fewest)
    if facts.fresh < least and not aged:
        lack = f"{facts.fresh} of {least} new labels are there"
        return Decision("waits for labels", [*reasons, lack], checks)
    return Decision("retrain", reasons, checks)


def _drift(facts: RetrainSignals) -> Check:
    names = ", ".join(facts.drifted)
    found = names or ("none" if facts.compared else "too few rows to judge")
    return Check("drifted", found, "any", f"drift of {names}" if names else None)


def _quality(facts: RetrainSignals, rules: RetrainSettings) -> Check:
    limit = f"{rules.quality_drop:.0%} on {rules.least_labels} labels"
    if facts.drop is None:
        return Check(f"{facts.metric} worse by", "no labels", limit, None)
    found = f"{facts.drop:.1%} on {facts.labels} labels"
    due = facts.labels >= rules.least_labels and facts.drop > rules.quality_drop
    reason = f"{facts.metric} is {facts.drop:.1%} worse than in training" if due else None
    return Check(f"{facts.metric} worse by", found, limit, reason)


def _labels(facts: RetrainSignals, rules: RetrainSettings) -> Check:
    reason = f"{facts.fresh} new labels" if facts.fresh >= rules.new_labels else None
    return Check("new labels", str(facts.fresh), str(rules.new_labels), reason)


def _age(facts: RetrainSignals, rules: RetrainSettings) -> Check:
    reason = f"the newest model is {facts.days:.0f} days old"
    due = facts.days > rules.max_days
    return Check("days old", f"{facts.days:.1f}", f"{rules.max_days:g}", reason if due else None)
