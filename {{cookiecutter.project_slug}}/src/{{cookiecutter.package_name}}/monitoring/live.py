"""What is measured of a running model, from the prediction log, for the server and the verbs."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..bundle.deployment import Deployment
from ..config import AB, WorkError
from ..seam import Arrays
from ..store import read
from ..store.database import Database
from ..task.contract import QUALITY, Contract
from . import ab
from .drift import Drift, compare

ANSWER = "answer: "  # tells what was answered from what was asked, where both have one name
ROWS = 1000  # newest items that drift and quality look at
FEWEST = 100  # of them, for a verdict on drift
VARIANTS = ("champion", "challenger", "shadow")


class LiveQuality(NamedTuple):
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

    traffic: read.Traffic
    labels: int
    mean: float | None  # score of the labelled answers


def expected(reference: Mapping[str, Any]) -> dict[str, Any]:
    """The distributions of a bundle's reference, by the names that drift has."""
    answers = {f"{ANSWER}{name}": found for name, found in reference["predictions"].items()}
    return {**reference["features"], **answers}


def observed(window: read.Window) -> Arrays:
    """The live values by the same names."""
    answers = {f"{ANSWER}{name}": values for name, values in window.outcomes.items()}
    return {**window.features, **answers}


def drift(
    database: Database,
    reference: Mapping[str, Any],
    rows: int = ROWS,
    version: str | None = None,
    since: float | None = None,
) -> list[Drift]:
    """The newest items against a bundle's reference, if of one version then in shadow as well."""
    variants = VARIANTS if version else read.ANSWERING
    window = read.window(database, rows, variants, version, since)
    return compare(expected(reference), observed(window), fewest=FEWEST)


def quality(
    database: Database,
    contract: Contract,
    manifests: Mapping[str, Mapping[str, Any]],
    rows: int = ROWS,
    since: float | None = None,
) -> list[LiveQuality]:
    """The mean score by version and variant, of the truths that came last; `manifests` by version
    tell what was expected."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in read.scored(database, contract, rows, since=since):
        scores[row.version, row.variant].append(row.score)
    return [
        _quality(version, variant, found, manifests.get(version, {}))
        for (version, variant), found in sorted(scores.items())
    ]


def _quality(
    version: str, variant: str, scores: list[float], manifest: Mapping[str, Any]
) -> LiveQuality:
    mean = float(np.mean(scores))
    wanted = manifest.get("metrics", {}).get(QUALITY.name)
    drop = None
    if wanted:  # of nothing no share is lost
        lost = wanted - mean if QUALITY.higher_is_better else mean - wanted
        drop = lost / abs(wanted)
    return LiveQuality(version, variant, QUALITY.name, mean, len(scores), wanted, drop)


def ab_verdict(
    settings: AB, database: Database, deployment: Deployment, contract: Contract
) -> tuple[list[Arm], ab.Verdict]:
    """Both sides of the test that runs, and what to do; WorkError when there is none to judge."""
    challenger, test = deployment.challenger, deployment.test
    if challenger is None or test is None:
        raise WorkError("there is no challenger, so nothing is tested")
    if challenger.mode == "split" and challenger.share == 1:
        raise WorkError("the challenger has all callers, so there is nothing to compare it with")
    rules = ab.Rules(**settings.model_dump(), higher_is_better=QUALITY.higher_is_better)
    rows = read.scored(database, contract, test=test)
    arms = []
    for traffic in read.summary(database, test):
        own = [row.score for row in rows if row.variant == traffic.variant]
        arms.append(Arm(traffic, len(own), float(np.mean(own)) if own else None))
    if challenger.mode == "shadow":
        return arms, ab.paired(*_pairs(rows), rules)
    units = np.array([row.unit for row in rows], str)
    challenged = np.array([row.variant == "challenger" for row in rows], bool)
    scores = np.array([row.score for row in rows], np.float64)
    return arms, ab.split(units, challenged, scores, challenger.share, rules)


def _pairs(rows: list[read.Scored]) -> tuple[np.ndarray, np.ndarray]:
    """Caller (n,) and score of shadow - champion (n,) of what both have answered."""
    sides: dict[str, dict[tuple[str, int], read.Scored]] = {"champion": {}, "shadow": {}}
    for row in rows:
        sides[row.variant][row.request_id, row.item] = row
    both = [(row, sides["shadow"].get(key)) for key, row in sides["champion"].items()]
    found = [(own.unit, other.score - own.score) for own, other in both if other is not None]
    return np.array([unit for unit, _ in found], str), np.array([gap for _, gap in found])
