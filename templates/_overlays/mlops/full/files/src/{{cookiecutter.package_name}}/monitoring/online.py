"""Measure a deployed model by the prediction log: for the server's metrics and the commands."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..base_settings import BaseSettings
from ..bundle.deployment import Deployment, bundle_path
from ..bundle.load import load_contract
from ..bundle.manifest import Manifest
from ..config import WorkError
from ..interfaces import BaseContract
from ..store import queries
from ..store.database import Database, open_log
from . import ab_test
from .drift import FeatureDrift, compare_distributions

PREDICTION_PREFIX = "answer: "  # tells a prediction from a feature of the same name
WINDOW_ROWS = 1000  # newest items, on which drift and quality are measured
MIN_DRIFT_ROWS = 100  # on fewer, drift is not judged
VARIANTS = ("champion", "challenger", "shadow")
# A scored prediction in 50 bytes; `item` is the hash of a request's id and the item's place in it.
SCORED = [("at", "f8"), ("unit", "S16"), ("variant", "S10"), ("item", "i8"), ("score", "f8")]


class OnlineQuality(NamedTuple):
    """The mean score of a version's predictions, by feedback."""

    version: str
    variant: str
    metric: str
    mean: float
    labels: int
    expected: float | None  # by the manifest; None if that is not known
    drop: float | None  # fraction of it that is lost; negative if online scores are better


class Arm(NamedTuple):
    """One variant of an A/B test: its traffic and its mean score."""

    traffic: queries.VariantTraffic
    labels: int
    mean: float | None  # None without labels


def with_predictions(features: Mapping[str, Any], predictions: Mapping[str, Any]) -> dict[str, Any]:
    """Merge features and predictions into one mapping, the predictions under a prefix."""
    return {**features, **{PREDICTION_PREFIX + name: of for name, of in predictions.items()}}


def measure_drift(
    database: Database,
    reference: Mapping[str, Any],
    rows: int = WINDOW_ROWS,
    version: str | None = None,
) -> list[FeatureDrift]:
    """Compare the newest items with a bundle's reference: those that callers were answered or, of
    one `version`, shadow traffic too."""
    variants = VARIANTS if version else queries.ANSWERING
    window = queries.read_window(database, rows, variants, version)
    expected = with_predictions(reference["features"], reference["predictions"])
    observed = with_predictions(window.features, window.prediction_stats)
    return compare_distributions(expected, observed, min_rows=MIN_DRIFT_ROWS)


def measure_quality(
    database: Database,
    contract: BaseContract,
    manifests: Mapping[str, Manifest],
    rows: int = WINDOW_ROWS,
) -> list[OnlineQuality]:
    """Return the mean score by version and variant, over the newest feedback; `manifests`, by
    version, hold the expected score."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in queries.read_scored(database, contract, rows):
        scores[row.version, row.variant].append(row.score)
    metric, higher_is_better = contract.SCORE
    measured = []
    for (version, variant), values in sorted(scores.items()):
        mean, drop = float(np.mean(values)), None
        manifest = manifests.get(version)
        expected = manifest.metrics.get(metric) if manifest else None
        if expected:  # no share of 0 can be lost
            lost = expected - mean if higher_is_better else mean - expected
            drop = lost / abs(expected)
        measured.append(OnlineQuality(version, variant, metric, mean, len(values), expected, drop))
    return measured


def measure_ab_test(
    settings: BaseSettings, deployed: Deployment
) -> tuple[list[Arm], ab_test.Verdict]:
    """Return both arms of the running A/B test and its verdict. Raises WorkError when it cannot be
    judged: no test, no log, or a contract that does not fit."""
    # 1. Read the traffic and its scores from the log.
    challenger, test = deployed.challenger, deployed.test
    if challenger is None or test is None:
        raise WorkError("there is no challenger, so no A/B test is running")
    if challenger.mode == "split" and challenger.share == 1:
        raise WorkError("the challenger has all the callers, so there is nothing to compare with")
    contract = load_contract(bundle_path(settings.paths.deployment, deployed.champion))
    with open_log(settings.live.database) as database:
        scored = np.fromiter(
            (
                (row.at, row.unit, row.variant, hash((row.request_id, row.item)), row.score)
                for row in queries.read_scored(database, contract, test=test)
            ),
            SCORED,
        )
        variants = queries.read_traffic(database, test)
    scored = scored[np.argsort(scored["at"], kind="stable")]
    arms = []
    for traffic in variants:
        scores = scored["score"][scored["variant"] == traffic.variant.encode()]
        arms.append(Arm(traffic, len(scores), float(scores.mean()) if len(scores) else None))
    # 2. Judge: a split by the scores of both variants, a shadow run by their differences.
    better = contract.SCORE.higher_is_better
    # Scores of which more is better are shares (accuracy, recall); errors have no bound.
    known = {"higher_is_better": better, "score_range": 1.0 if better else None}
    rules = ab_test.TestRules(**settings.ab.model_dump(), **known)
    if challenger.mode == "split":
        challenged = scored["variant"] == b"challenger"
        split = scored["unit"], challenged, scored["score"], challenger.share
        return arms, ab_test.compare_split(*split, rules)
    own, shadow = (scored[scored["variant"] == name] for name in (b"champion", b"shadow"))
    _, first, second = np.intersect1d(own["item"], shadow["item"], return_indices=True)
    gains = shadow["score"][second] - own["score"][first]
    return arms, ab_test.compare_paired(own["unit"][first], gains, rules)
