"""Cross-validation: what is kept of each fold, and intervals over folds."""

import math
from collections.abc import Sequence

import numpy as np

from ..files import Document
from ..interfaces import Metrics
from .documents import Interval, RowCounts
from .intervals import t_quantile


class Fold(Document):
    """The networks and the baselines on the test rows of a fold."""

    run: str  # its folder
    fingerprint: str  # of the data in these splits
    rows: RowCounts
    network: Metrics  # mean over the seeds
    baselines: dict[str, Metrics]
    train_seconds: float


class Estimate(Document):
    """A mean over folds."""

    mean: float
    sd: float  # between folds
    interval: Interval  # 95 %


class CrossValidation(Document):
    """`crossval.json`: the folds and what they say together, by the primary metric."""

    name: str
    metric: str
    higher_is_better: bool
    about: str  # the data and its splits
    seeds: list[int]  # of each fold
    folds: list[Fold]
    network: Estimate
    baselines: dict[str, Estimate]
    # Lead over each baseline, fold by fold; positive: better. All intervals hold together at 95 %.
    ahead: dict[str, Estimate]
    command: str


def summarise(
    name: str,
    metric: str,
    higher_is_better: bool,
    about: str,
    seeds: list[int],
    folds: Sequence[Fold],
    command: str,
) -> CrossValidation:
    """Compare the networks with the baselines on the same folds."""
    sign = 1 if higher_is_better else -1
    network = np.array([fold.network[metric] for fold in folds])
    # A baseline that a fold does not have (by its data) has no mean over folds.
    names = [key for key in folds[0].baselines if all(key in fold.baselines for fold in folds)]
    others = {key: np.array([fold.baselines[key][metric] for fold in folds]) for key in names}
    return CrossValidation(
        name=name,
        metric=metric,
        higher_is_better=higher_is_better,
        about=about,
        seeds=seeds,
        folds=list(folds),
        network=estimate(network),
        baselines={key: estimate(values) for key, values in others.items()},
        ahead={
            key: estimate(sign * (network - values), len(others)) for key, values in others.items()
        },
        command=command,
    )


def estimate(values: np.ndarray, intervals: int = 1) -> Estimate:
    """Return mean and 95 % interval of a metric over folds (fold,).

    So many `intervals` hold together at 95 % at least, by Bonferroni's correction: a few folds
    do not tell how the leads are correlated.

    Training sets overlap, so the folds are not independent: the variance of the mean is
    (1 / k + test / training) · s² over k folds, and Student's t has k - 1 degrees of freedom. All
    but one fold makes the model, by training or validation, so test / training is 1 / (k - 1).
    Nadeau and Bengio, Inference for the generalization error, 2003.
    """
    count = len(values)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    half = (
        t_quantile(1 - 0.025 / intervals, count - 1) * sd * math.sqrt(1 / count + 1 / (count - 1))
    )
    return Estimate(mean=mean, sd=sd, interval=(mean - half, mean + half))
