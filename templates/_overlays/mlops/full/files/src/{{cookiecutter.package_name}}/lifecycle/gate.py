"""The gate: a challenger must beat the champion on data that neither was trained on.

It passes when it is significantly better overall or on the newest production data, and not
significantly worse on any slice. Where it is better on the newest production data, the world may
have changed: older data then hold no veto unless `retrain.old_loss` of the score is lost there. The
more slices are compared, the more often one looks worse by chance alone, so their intervals are
widened (Bonferroni): all of them together err in at most 5 % of the cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Arrays, LazyArray, concatenate, in_chunks, row_count
from ..base_settings import RetrainSettings
from ..bundle.load import Bundle
from ..config import WorkError
from ..task import contract, objective
from ..task.contract import Contract
from ..task.data import Dataset
from ..training.intervals import mean_interval
from ..training.runs import Run

OVERALL = "all held-out data"
ORIGINAL, PRODUCTION = "original data", "production data"
MIN_EXAMPLES = 20  # of a slice: the mean of fewer says little
ERROR = 0.05  # error rate of the overall interval, and of the slices' intervals together
BATCH_ROWS = 256  # rows per call of the champion's session


class SliceScores(NamedTuple):
    """Scores (n,) of both models on the same rows, and the groups that these belong to."""

    champion: np.ndarray
    challenger: np.ndarray
    clusters: np.ndarray | None = None


@dataclass(frozen=True)
class SliceComparison:
    """Mean scores on one slice of the held-out data; `ahead` > 0: the challenger is better."""

    name: str
    examples: int
    champion: float
    challenger: float
    ahead: float
    low: float
    high: float
    tolerance: float = 0.0  # loss that is accepted

    @property
    def finding(self) -> str:
        """What the interval allows us to say about the challenger."""
        if self.low > 0:
            return "better"
        if self.high < -self.tolerance:
            return "worse"
        return "worse, accepted" if self.high < 0 else "not distinguishable"


@dataclass(frozen=True)
class Gate:
    """The result of all comparisons; the first slice is all held-out data."""

    champion: str
    challenger: str
    metric: str
    slices: list[SliceComparison]
    margin: float = 0.0  # fraction of the champion's score that may be lost

    @property
    def decisive(self) -> SliceComparison:
        """The newest production data if the challenger is better there, else all data."""
        newest = next((each for each in self.slices if each.name == PRODUCTION), self.slices[0])
        return newest if newest.finding == "better" else self.slices[0]

    @property
    def worse(self) -> list[SliceComparison]:
        return [each for each in self.slices if each.finding == "worse"]

    @property
    def passed(self) -> bool:
        allowed = self.margin * abs(self.decisive.champion)
        return (self.decisive.low > 0 or self.decisive.low > -allowed) and not self.worse

    @property
    def reason(self) -> str:
        best = self.decisive
        where = "overall" if best is self.slices[0] else f"on the newest {PRODUCTION}"
        ahead = f"{self.metric} {best.ahead:+.3g} ({best.low:+.3g} to {best.high:+.3g})"
        claim = f"significantly better {where}"
        if best.finding != "better":
            if best.low <= -self.margin * abs(best.champion):
                return f"not {claim}: {ahead}"
            claim = f"not worse {where} by more than {self.margin:.1%}"
        if self.worse:
            names = ", ".join(each.name for each in self.worse)
            return f"{claim}, {ahead}, but significantly worse on: {names}"
        accepted = [each.name for each in self.slices if each.finding == "worse, accepted"]
        losses = f"; accepted losses on: {', '.join(accepted)}" if accepted else ""
        return f"{claim} and not significantly worse on any slice: {ahead}{losses}"

    def summary(self) -> dict[str, Any]:
        """Return what the history keeps beside the reason."""
        overall = asdict(self.slices[0])
        figures = {name: overall[name] for name in ("examples", "ahead", "low", "high")}
        worse = [each.name for each in self.worse]
        return {"champion": self.champion, "passed": self.passed, **figures, "worse": worse}

    def record(self) -> dict[str, Any]:
        """Return everything, as the JSON of `gate.json`."""
        names = {name: getattr(self, name) for name in ("champion", "challenger", "metric")}
        slices = [{**asdict(each), "finding": each.finding} for each in self.slices]
        return {"passed": self.passed, "reason": self.reason, **names, "parts": slices}

    def table(self) -> list[list[str]]:
        """Return rows for people, the header first."""
        head = ["Slice", "Examples", f"Champion {self.metric}", "Challenger", "Ahead", "Finding"]
        rows = [head]
        for each in self.slices:
            means = f"{each.champion:.4g}", f"{each.challenger:.4g}"
            ahead = f"{each.ahead:+.3g} ({each.low:+.3g} to {each.high:+.3g})"
            rows.append([each.name, str(each.examples), *means, ahead, each.finding])
        return rows


def check_comparable(champion: Bundle, today: Contract) -> None:
    """Raise WorkError unless the champion's contract equals that of today's data and settings."""
    fields = type(today).model_fields  # not dict(): that has the cached properties too
    if differ := [key for key in fields if getattr(champion.contract, key) != getattr(today, key)]:
        raise WorkError(
            f"the contract of the champion {champion.version} differs from that of today's data "
            f"and settings in {', '.join(differ)}, so a comparison would not be fair; train and "
            "deploy a model by hand"
        )


def run_gate(
    champion: Bundle, run: Run, dataset: Dataset, original: int, rules: RetrainSettings
) -> Gate:
    """Compare the champion with an evaluated run on the test split.

    The first `original` of its rows are those of the original data, the others from production.
    """
    inputs = {name: dataset.test[name] for name in contract.INPUTS}
    predicted = concatenate(map(champion.run, in_chunks(inputs, BATCH_ROWS)))
    with np.load(run.folder / "outputs.npz") as file:
        pairs = scores_by_slice(predicted, dict(file), dataset, original, rules.newest_rows)
    slices = accept_old_losses(compare_slices(pairs), rules.old_loss)
    return Gate(champion.version, run.name, objective.PRIMARY_METRIC, slices, rules.margin)


def accept_old_losses(slices: list[SliceComparison], share: float) -> list[SliceComparison]:
    """Where the challenger is better on the newest production data, let each slice of older data
    lose this share of the champion's score."""
    if not any(each.name == PRODUCTION and each.low > 0 for each in slices):
        return slices
    return [
        each if each.name == PRODUCTION else replace(each, tolerance=share * abs(each.champion))
        for each in slices
    ]


def scores_by_slice(
    champion: Arrays,
    challenger: Arrays,
    dataset: Dataset,
    original: int,
    newest_rows: int = 1000,
) -> dict[str, SliceScores]:
    """Score both models' outputs by slice, all held-out data first; small slices are left out."""
    test, clusters = dataset.test, dataset.test_clusters()
    rows = row_count(test)

    def score(chosen: slice) -> SliceScores:
        labels, first, second = (
            {k: column[chosen] for k, column in arrays.items() if not isinstance(column, LazyArray)}
            for arrays in (test, champion, challenger)
        )
        scores = objective.scores(first, labels), objective.scores(second, labels)
        return SliceScores(*scores, None if clusters is None else clusters[chosen])

    pairs = {}
    if original < rows:
        newest = max(original, rows - newest_rows)
        pairs = {ORIGINAL: score(slice(original)), PRODUCTION: score(slice(newest, None))}
    scores = [objective.slice_scores(outputs, test) for outputs in (champion, challenger)]
    for name, mask in objective.slices(test, dataset.contract).items():
        known = None if clusters is None else clusters[mask]
        pairs[name] = SliceScores(scores[0][mask], scores[1][mask], known)
    large = {name: pair for name, pair in pairs.items() if len(pair.champion) >= MIN_EXAMPLES}
    return {OVERALL: score(slice(None)), **large}


def compare_slices(pairs: Mapping[str, SliceScores]) -> list[SliceComparison]:
    """Compare the scores of each slice, with intervals of `mean_interval`."""
    sign = 1 if objective.HIGHER_IS_BETTER else -1
    slice_level = 1 - ERROR / max(1, len(pairs) - 1)
    comparisons = []
    for name, (champion, challenger, clusters) in pairs.items():
        ahead = sign * (challenger - champion)
        # With production data there are two ways to pass: each gets half of the error.
        primary = 1 - (ERROR / 2 if PRODUCTION in pairs else ERROR)
        level = primary if name == OVERALL else slice_level
        level = max(level, primary) if name == PRODUCTION else level
        low, high = mean_interval(ahead[None], clusters, level)
        means = float(champion.mean()), float(challenger.mean()), float(ahead.mean())
        comparisons.append(SliceComparison(name, len(ahead), *means, low, high))
    return comparisons
