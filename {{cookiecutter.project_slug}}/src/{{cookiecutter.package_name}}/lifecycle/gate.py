"""Whether a challenger may be tried: it must beat the champion on data that neither was trained on.

Better means by more than noise, and on no named part of the data worse by more than noise. Parts
are many, and the more of them are looked at, the more often one looks worse by chance alone; so
their intervals are made wider (Bonferroni): all of them together err in 5 % of the cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.load import Bundle
from ..config import WorkError
from ..interfaces import Arrays
from ..task import contract as names
from ..task import objective
from ..task.contract import Contract
from ..task.data import Dataset
from ..training.evaluate import bootstrap_interval

EVERYTHING = "all held-out data"
ORIGINAL, PRODUCTION = "original data", "from production"
MIN_EXAMPLES = 20  # examples of a part: of fewer no mean says much
ERROR = 0.05
BATCH_ROWS = 256  # that the champion answers at once

Pair = tuple[np.ndarray, np.ndarray]  # scores of the champion and of the challenger


@dataclass(frozen=True)
class SliceComparison:
    """The comparison on one part of the held-out data; `ahead` > 0 is better."""

    name: str
    examples: int
    champion: float
    challenger: float
    ahead: float
    low: float
    high: float

    @property
    def finding(self) -> str:
        """What the interval allows to say of the challenger."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not distinguishable"


@dataclass(frozen=True)
class Gate:
    """The outcome with everything it rests on."""

    champion: str
    challenger: str
    metric: str
    parts: list[SliceComparison]

    @property
    def worse(self) -> list[SliceComparison]:
        """The parts that forbid the challenger."""
        return [part for part in self.parts if part.finding == "worse"]

    @property
    def passed(self) -> bool:
        return self.parts[0].finding == "better" and not self.worse

    @property
    def reason(self) -> str:
        """Outcome in words."""
        whole = self.parts[0]
        ends = f"{whole.ahead:+.3g} ({whole.low:+.3g} to {whole.high:+.3g})"
        if whole.finding != "better":
            return f"not better by more than noise: {self.metric} {ends}"
        if self.worse:
            return f"better by {ends}, but worse on: {', '.join(p.name for p in self.worse)}"
        return f"better by {ends} in {self.metric}, on no part worse by more than noise"

    def line(self) -> dict[str, Any]:
        """What the history keeps beside the reason."""
        numbers = asdict(self.parts[0])
        kept = {name: numbers[name] for name in ("examples", "ahead", "low", "high")}
        worse = [part.name for part in self.worse]
        return {"champion": self.champion, "passed": self.passed, **kept, "worse": worse}

    def record(self) -> dict[str, Any]:
        """Everything, as JSON."""
        own = {name: getattr(self, name) for name in ("champion", "challenger", "metric")}
        parts = [{**asdict(part), "finding": part.finding} for part in self.parts]
        return {"passed": self.passed, "reason": self.reason, **own, "parts": parts}

    def table(self) -> list[list[str]]:
        """Rows for people."""
        head = ["Part", "Examples", f"Champion {self.metric}", "Challenger", "Ahead", "Finding"]
        return [
            head,
            *(
                [
                    part.name,
                    str(part.examples),
                    f"{part.champion:.4g}",
                    f"{part.challenger:.4g}",
                    f"{part.ahead:+.3g} ({part.low:+.3g} to {part.high:+.3g})",
                    part.finding,
                ]
                for part in self.parts
            ),
        ]


def check_comparable(champion: Bundle, contract: Contract) -> None:
    """WorkError unless both models are asked the same and answer in the same terms."""
    if champion.contract == contract:
        return
    fields = type(contract).model_fields
    differ = [key for key in fields if getattr(champion.contract, key) != getattr(contract, key)]
    raise WorkError(
        f"{', '.join(differ)}: today's data and settings differ in this from the champion "
        f"{champion.version}, so no comparison is fair; train and deploy a model by hand"
    )


def run_gate(
    champion: Bundle, challenger: str, outputs: Arrays, dataset: Dataset, original: int
) -> Gate:
    """Compare on the test split; its first `original` rows are those of the original data."""
    known = bundle_outputs(champion, dataset.test)
    pairs = scores_by_slice(known, outputs, dataset, original)
    return Gate(champion.version, challenger, objective.PRIMARY_METRIC, compare_slices(pairs))


def bundle_outputs(bundle: Bundle, split: Arrays) -> Arrays:
    """The outputs of a bundle for all rows of a split."""
    count = len(next(iter(split.values())))
    parts = [
        bundle.run({name: split[name][start : start + BATCH_ROWS] for name in names.INPUTS})
        for start in range(0, count, BATCH_ROWS)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in names.OUTPUTS}


def scores_by_slice(
    champion: Arrays, challenger: Arrays, dataset: Dataset, original: int
) -> dict[str, Pair]:
    """Both models' scores by part, everything first; small parts are left out."""
    test = dataset.test

    def scores(rows: slice) -> Pair:
        own = _rows(test, rows)
        known, new = (_rows(outputs, rows) for outputs in (champion, challenger))
        return objective.scores(known, own), objective.scores(new, own)

    whole = scores(slice(None))
    count = len(next(iter(test.values())))
    found = {}
    if original < count:
        found = {ORIGINAL: scores(slice(original)), PRODUCTION: scores(slice(original, None))}
    each = [objective.slice_scores(outputs, test) for outputs in (champion, challenger)]
    for name, mask in objective.slices(test, dataset.contract).items():
        found[name] = each[0][mask], each[1][mask]
    large = {name: pair for name, pair in found.items() if len(pair[0]) >= MIN_EXAMPLES}
    return {EVERYTHING: whole, **large}


def compare_slices(pairs: Mapping[str, Pair]) -> list[SliceComparison]:
    """The comparison of each part."""
    sign = 1 if objective.HIGHER_IS_BETTER else -1
    wide = 1 - ERROR / max(1, len(pairs) - 1)
    found = []
    for name, (champion, challenger) in pairs.items():
        ahead = sign * (challenger - champion)
        low, high = bootstrap_interval(ahead[None], 1 - ERROR if name == EVERYTHING else wide)
        means = float(champion.mean()), float(challenger.mean())
        found.append(SliceComparison(name, len(ahead), *means, float(ahead.mean()), low, high))
    return found


def read_outputs(folder: Path) -> Arrays:
    """What the chosen network of an evaluated run answered on its test split."""
    with np.load(folder / "outputs.npz") as file:
        return dict(file)


def _rows(arrays: Arrays, rows: slice) -> Arrays:
    return {name: array[rows] for name, array in arrays.items()}
