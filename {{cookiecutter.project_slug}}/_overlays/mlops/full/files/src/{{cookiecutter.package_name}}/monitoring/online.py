"""Measure a deployed model by the prediction log: for the server's metrics and the commands."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from ..base_settings import ABTestSettings, BaseSettings
from ..bundle.deployment import Deployment, bundle_path
from ..bundle.load import BadBundle, load_contract
from ..bundle.manifest import Manifest
from ..config import WorkError
from ..interfaces import Arrays, BaseContract
from ..store import queries
from ..store.database import Database, DatabaseError
from . import ab_test
from .drift import FeatureDrift, compare_distributions

PREDICTION_PREFIX = "answer: "  # tells predictions from features, where both have one name
WINDOW_ROWS = 1000  # newest items, of which drift and quality are measured
MIN_DRIFT_ROWS = 100  # of them, before drift is judged
VARIANTS = ("champion", "challenger", "shadow")


class OnlineQuality(NamedTuple):
    """The mean score of a version's predictions, by feedback."""

    version: str
    variant: str
    metric: str
    mean: float
    labels: int
    expected: float | None  # by the manifest; None if that is not known
    drop: float | None  # share of it that is lost, below 0 if online scores are better


class Arm(NamedTuple):
    """One variant of an A/B test: its traffic and its mean score."""

    traffic: queries.VariantTraffic
    labels: int
    mean: float | None  # None without labels


def reference_distributions(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return the distributions of a bundle's reference by the names that drift has."""
    predictions = {f"{PREDICTION_PREFIX}{k}": v for k, v in reference["predictions"].items()}
    return {**reference["features"], **predictions}


def online_values(window: queries.Window) -> Arrays:
    """Return a window's values (n,) by the same names."""
    predictions = {f"{PREDICTION_PREFIX}{k}": v for k, v in window.prediction_stats.items()}
    return {**window.features, **predictions}


def measure_drift(
    database: Database,
    reference: Mapping[str, Any],
    rows: int = WINDOW_ROWS,
    version: str | None = None,
    since: float | None = None,
) -> list[FeatureDrift]:
    """Compare the newest items with a bundle's reference.

    Of one `version` shadow traffic counts too, otherwise only what callers were answered; `since`
    is in seconds since 1970.
    """
    variants = VARIANTS if version else queries.ANSWERING
    window = queries.read_window(database, rows, variants, version, since)
    return compare_distributions(
        reference_distributions(reference), online_values(window), min_rows=MIN_DRIFT_ROWS
    )


def measure_quality(
    database: Database,
    contract: BaseContract,
    manifests: Mapping[str, Manifest],
    rows: int = WINDOW_ROWS,
    since: float | None = None,
) -> list[OnlineQuality]:
    """Return the mean score by version and variant, over the newest feedback.

    `manifests`, by version, hold the expected score.
    """
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in queries.read_scored(database, contract, rows, since=since):
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
    settings: ABTestSettings, database: Database, deployment: Deployment, contract: BaseContract
) -> tuple[list[Arm], ab_test.Verdict]:
    """Return both arms of the running test and its verdict; WorkError when none can be judged."""
    challenger, test = deployment.challenger, deployment.test
    if challenger is None or test is None:
        raise WorkError("there is no challenger, so no A/B test is running")
    if challenger.mode == "split" and challenger.share == 1:
        raise WorkError("the challenger has all the callers, so there is nothing to compare with")
    better = contract.SCORE.higher_is_better
    rules = ab_test.TestRules(**settings.model_dump(), higher_is_better=better)
    rows = queries.read_scored(database, contract, test=test)
    arms = []
    for traffic in queries.read_traffic(database, test):
        scores = [row.score for row in rows if row.variant == traffic.variant]
        arms.append(Arm(traffic, len(scores), float(np.mean(scores)) if scores else None))
    if challenger.mode == "shadow":
        shadows = {(row.request_id, row.item): row.score for row in rows if row.variant == "shadow"}
        both = [
            (row.unit, shadows[row.request_id, row.item] - row.score)
            for row in rows
            if row.variant == "champion" and (row.request_id, row.item) in shadows
        ]
        units = np.array([unit for unit, _ in both], str)
        gains = np.array([gain for _, gain in both], np.float64)
        return arms, ab_test.compare_paired(units, gains, rules)
    units = np.array([row.unit for row in rows], str)
    challenged = np.array([row.variant == "challenger" for row in rows], bool)
    scores = np.array([row.score for row in rows], np.float64)
    return arms, ab_test.compare_split(units, challenged, scores, challenger.share, rules)


def ab_verdict_record(
    settings: BaseSettings, deployed: Deployment, force: bool = False
) -> dict[str, Any] | None:
    """Judge the running A/B test for `promote`, as JSON; None without a challenger.

    DatabaseError, BadBundle or WorkError when it cannot be judged; with `force` the decision is
    then `unknown`.
    """
    if deployed.challenger is None:
        return None
    database = Database(settings.live.database)
    try:
        contract = load_contract(bundle_path(settings.paths.deployment, deployed.champion))
        database.migrate()
        return asdict(measure_ab_test(settings.ab, database, deployed, contract)[1])
    except (BadBundle, DatabaseError, WorkError) as error:
        if not force:
            raise
        return {"decision": "unknown", "reason": str(error)}
    finally:
        database.close()
