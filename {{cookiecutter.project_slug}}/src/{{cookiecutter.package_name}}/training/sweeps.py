"""Sweeps: variants of the settings, compared with a base on validation."""

import numpy as np

from ..config import UserError, WorkError
from ..files import Document
from ..task import objective
from ..task.data import Dataset
from ..task.settings import Settings
from .documents import Interval
from .evaluate import load_network
from .fit import predict
from .intervals import mean_interval
from .runs import Run, git_state, read_run


class Variant(Document):
    """A variant, or the base, on validation."""

    name: str
    overrides: list[str]  # `section.key=value` beyond the base's; [] for the base
    run: str
    mean: float  # of the metric, over seeds
    interval: Interval  # 95 %
    ahead: float | None = None  # of the base; positive: better
    ahead_interval: Interval | None = None
    train_seconds: float

    @property
    def verdict(self) -> str:
        """The claim that the interval allows."""
        if self.ahead_interval is None:
            return ""
        low, high = self.ahead_interval
        return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


class SweepRecord(Document):
    """`sweep.json`: the base and its variants, all on the same validation rows."""

    name: str
    metric: str
    higher_is_better: bool
    fingerprint: str
    seeds: list[int]
    base: Variant
    variants: list[Variant]
    command: str


def find_run(settings: Settings, dataset: Dataset) -> Run | None:
    """Return the newest run of these settings, this data and the code of today's commit."""
    commit, wanted = git_state().commit, _shaping(settings)
    for path in sorted(settings.paths.runs.glob("*/run.json"), reverse=True):
        try:
            run = read_run(path.parent, settings)
        except UserError:  # of other code, or not a run: train another
            continue
        same_data = run.info.data.fingerprint == dataset.fingerprint
        if same_data and run.info.git.commit == commit and _shaping(run.settings) == wanted:
            return run
    return None


def validation_scores(run: Run, dataset: Dataset) -> np.ndarray:
    """Return the scores (seed, example) of a run's networks on validation."""
    split, rows = dataset.validation, []
    for seed in run.settings.train.seeds:
        network = load_network(run, dataset, seed)
        outputs = predict(network, split, run.settings.train.batch_size)
        rows.append(objective.scores(outputs, split))
    return np.stack(rows)


def compare(
    name: str, overrides: list[str], run: Run, scores: np.ndarray, base: np.ndarray | None
) -> Variant:
    """Measure a variant by its scores (seed, example), paired with those of the base.

    Raises WorkError if its validation rows are not those of the base.
    """
    ahead = interval = None
    if base is not None:
        if scores.shape != base.shape:
            raise WorkError(
                f"{name}: has {scores.shape[0]} networks and {scores.shape[1]} validation rows, "
                f"the base {base.shape[0]} and {base.shape[1]}: they cannot be paired"
            )
        gains = (scores - base) * (1 if objective.HIGHER_IS_BETTER else -1)
        ahead, interval = float(gains.mean()), mean_interval(gains)
    return Variant(
        name=name,
        overrides=overrides,
        run=run.name,
        mean=float(scores.mean()),
        interval=mean_interval(scores),
        ahead=ahead,
        ahead_interval=interval,
        train_seconds=round(run.seconds(), 1),
    )


def _shaping(settings: Settings) -> dict[str, object]:
    """Return what shapes a run: all settings but the paths."""
    return settings.model_dump(mode="json", exclude={"paths"})
