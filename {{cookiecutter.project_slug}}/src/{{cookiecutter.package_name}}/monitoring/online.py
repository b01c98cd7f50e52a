"""What is measured of a running model, from the prediction log, for the server and the verbs."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..base_settings import ABTestSettings
from ..bundle.deployment import Deployment
from ..bundle.manifest import Manifest
from ..config import WorkError
from ..interfaces import Arrays
from ..store import queries
from ..store.database import Database
from ..task.contract import SCORE, Contract
from . import ab_test
from .drift import FeatureDrift, compare_distributions

ANSWER = "answer: "  # tells what was answered from what was asked, where both have one name
WINDOW_ROWS = 1000  # newest items that drift and quality look at
MIN_DRIFT_ROWS = 100  # of them, for a verdict on drift
VARIANTS = ("champion", "challenger", "shadow")


class OnlineQuality(NamedTuple):
    """How good the answers of a version turned out to be."""

    version: str
    variant: str
    metric: str
    mean: float
    labels: int
    expected: float | None  # what the manifest names; None if that is not known
    drop: float | None  # share of it that is lost, below 0 if the live answers are better


class Arm(NamedTuple):
    """One variant of a test: what it had to do and how well it did."""

    traffic: queries.VariantTraffic
    labels: int
    mean: float | None  # score of the labelled answers


def reference_distributions(reference: Mapping[str, Any]) -> dict[str, Any]:
    """The distributions of a bundle's reference, by the names that drift has."""
    answers = {f"{ANSWER}{name}": found for name, found in reference["predictions"].items()}
    return {**reference["features"], **answers}


def online_values(window: queries.Window) -> Arrays:
    """The live values by the same names."""
    answers = {f"{ANSWER}{name}": values for name, values in window.outcomes.items()}
    return {**window.features, **answers}


def measure_drift(
    database: Database,
    reference: Mapping[str, Any],
    rows: int = WINDOW_ROWS,
    version: str | None = None,
    since: float | None = None,
) -> list[FeatureDrift]:
    """The newest items against a bundle's reference, if of one version then in shadow as well."""
    variants = VARIANTS if version else queries.ANSWERING
    window = queries.read_window(database, rows, variants, version, since)
    return compare_distributions(
        reference_distributions(reference), online_values(window), fewest=MIN_DRIFT_ROWS
    )


def measure_quality(
    database: Database,
    contract: Contract,
    manifests: Mapping[str, Manifest],
    rows: int = WINDOW_ROWS,
    since: float | None = None,
) -> list[OnlineQuality]:
    """The mean score by version and variant, of the truths that came last; `manifests` by version
    tell what was expected."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in queries.read_scored(database, contract, rows, since=since):
        scores[row.version, row.variant].append(row.score)
    return [
        _quality(version, variant, found, manifests.get(version))
        for (version, variant), found in sorted(scores.items())
    ]


def _quality(
    version: str, variant: str, scores: list[float], manifest: Manifest | None
) -> OnlineQuality:
    mean = float(np.mean(scores))
    wanted = manifest.metrics.get(SCORE.name) if manifest else None
    drop = None
    if wanted:  # of nothing no share is lost
        lost = wanted - mean if SCORE.higher_is_better else mean - wanted
        drop = lost / abs(wanted)
    return OnlineQuality(version, variant, SCORE.name, mean, len(scores), wanted, drop)


def measure_ab_test(
    settings: ABTestSettings, database: Database, deployment: Deployment, contract: Contract
) -> tuple[list[Arm], ab_test.Verdict]:
    """Both sides of the test that runs, and what to do; WorkError when there is none to judge."""
    challenger, test = deployment.challenger, deployment.test
    if challenger is None or test is None:
        raise WorkError("there is no challenger, so nothing is tested")
    if challenger.mode == "split" and challenger.share == 1:
        raise WorkError("the challenger has all callers, so there is nothing to compare it with")
    rules = ab_test.TestRules(**settings.model_dump(), higher_is_better=SCORE.higher_is_better)
    rows = queries.read_scored(database, contract, test=test)
    arms = []
    for traffic in queries.read_traffic(database, test):
        own = [row.score for row in rows if row.variant == traffic.variant]
        arms.append(Arm(traffic, len(own), float(np.mean(own)) if own else None))
    if challenger.mode == "shadow":
        return arms, ab_test.compare_paired(*_pairs(rows), rules)
    units = np.array([row.unit for row in rows], str)
    challenged = np.array([row.variant == "challenger" for row in rows], bool)
    scores = np.array([row.score for row in rows], np.float64)
    return arms, ab_test.compare_split(units, challenged, scores, challenger.share, rules)


def _pairs(rows: list[queries.ScoredPrediction]) -> tuple[np.ndarray, np.ndarray]:
    """Caller (n,) and score of shadow - champion (n,) of what both have answered."""
    sides: dict[str, dict[tuple[str, int], queries.ScoredPrediction]] = {
        "champion": {},
        "shadow": {},
    }
    for row in rows:
        sides[row.variant][row.request_id, row.item] = row
    both = [(row, sides["shadow"].get(key)) for key, row in sides["champion"].items()]
    found = [(own.unit, other.score - own.score) for own, other in both if other is not None]
    return np.array([unit for unit, _ in found], str), np.array([gap for _, gap in found])
