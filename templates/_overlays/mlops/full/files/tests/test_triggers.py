"""Retraining is decided by triggers with thresholds; every decision says why."""

from dataclasses import replace
from typing import Any

import pytest

from {{ cookiecutter.package_name }}.base_settings import RetrainSettings
from {{ cookiecutter.package_name }}.lifecycle.triggers import RetrainSignals, decide

QUIET = RetrainSignals([], 5, "accuracy", 0.0, 500, 50, 3, 1.0, None)
THRESHOLDS = RetrainSettings(new_labels=1000, least_labels=100, quality_drop=0.1, max_days=90)


def test_nothing_new_triggers_nothing() -> None:
    decision = decide(QUIET, THRESHOLDS, if_needed=True)
    assert (decision.outcome, decision.reasons) == ("not needed", [])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"drifted": ["brightness", "contrast"], "new_labels": 100},
            "drift in brightness, contrast",
        ),
        ({"drop": 0.11, "new_labels": 100}, "accuracy is 11.0% worse than in training"),
        ({"new_labels": 1000}, "1000 new labels"),
        ({"days": 91.0, "new_labels": 0}, "the newest model is 91 days old"),
    ],
)
def test_each_trigger_alone_is_enough_and_named(changed: dict[str, Any], reason: str) -> None:
    decision = decide(replace(QUIET, **changed), THRESHOLDS, if_needed=True)
    assert (decision.outcome, decision.reasons) == ("retrain", [reason])
    assert [row[-1] for row in decision.table()].count("yes") == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"drop": 0.09},
        {"drop": 0.5, "labels": 99},
        {"drop": None, "labels": 0},
        {"new_labels": 999},
        {"days": 89.0},
    ],
)
def test_below_its_threshold_no_trigger_fires(changed: dict[str, Any]) -> None:
    assert decide(replace(QUIET, **changed), THRESHOLDS, if_needed=True).outcome == "not needed"


def test_triggers_wait_for_labels_but_age_does_not() -> None:
    drifted = replace(QUIET, drifted=["contrast"], new_labels=99)
    decision = decide(drifted, THRESHOLDS, if_needed=True)
    assert decision.outcome == "waits for labels"
    assert decision.reasons == ["drift in contrast"]
    assert decision.sentence == (
        "not retraining yet: drift in contrast, but only 99 of the 100 new labels needed"
    )
    assert decide(replace(drifted, days=100), THRESHOLDS, if_needed=True).outcome == "retrain"
    unsplittable = replace(drifted, new_labels=100, min_new=101)
    assert decide(unsplittable, THRESHOLDS, if_needed=True).outcome == "waits for labels"


def test_running_ab_test_blocks_retraining_unless_forced() -> None:
    tested = replace(QUIET, new_labels=5000, tested="v2")
    for if_needed in (True, False):
        waiting = decide(tested, THRESHOLDS, if_needed)
        assert waiting.outcome == "a test is running"
        assert "the A/B test of v2 is still running" in waiting.sentence
        assert decide(tested, THRESHOLDS, if_needed, force=True).outcome == "retrain"


def test_retraining_by_hand_needs_no_trigger() -> None:
    decision = decide(QUIET, THRESHOLDS, if_needed=False)
    assert (decision.outcome, decision.reasons) == ("retrain", ["by hand"])
