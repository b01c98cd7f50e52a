"""Confidence intervals of mean scores over a few seeds and many examples."""

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np

from ..task import objective
from .documents import Interval

MOST_DEGREES = 1e5  # of freedom: beyond, Student's t is the normal distribution
DRAWS = 20_000  # of the leads' joint normal distribution; the level is then known to ± 0.2 points


def mean_interval(
    scores: np.ndarray, clusters: np.ndarray | None = None, level: float = 0.95
) -> Interval:
    """Return the t interval of the mean of `scores` (seed, example).

    Two parts, those of crossed random effects (Owen, The pigeonhole bootstrap, 2007,
    https://arxiv.org/abs/0712.1111): the variance over seeds, and over examples, whose scores are
    summed over `clusters` (example,) or over BLOCK_LENGTH neighbours, for these resemble each
    other. Each has its own quantile, for three seeds say little about seeds: Banerjee, Sankhya 22,
    1960, whose intervals cover at least their level. With one seed the spread over seeds is
    unknown, and the interval holds for that seed alone.

    Few clusters of unequal size say less than their number promises, since the large ones pull the
    mean towards themselves. So the variance over examples is the jackknife's over clusters (CR3),
    which is large enough also where a cluster's examples are alike, with Satterthwaite's degrees
    of freedom: Bell and McCaffrey, Bias reduction in standard errors for linear regression with
    multi-stage samples, Survey Methodology 28, 2002. Equal clusters have count - 1 degrees.
    """
    seeds = len(scores)
    sums, shares = _cluster_sums(scores, clusters)
    count = len(shares)
    if count == 1:  # one cluster shows no variance: all that is known is the range
        return float(scores.min()), float(scores.max())
    weights = (1 - 1 / count) / (1 - shares) ** 2  # count / (count - 1) if all are equally large
    of_examples = np.square(sums.mean(axis=0)) @ weights
    half = t_quantile((1 + level) / 2, _freedom(shares, weights)) * np.sqrt(of_examples)
    if seeds > 1:
        # What a seed makes of single examples moves its mean too, and is among `of_examples`.
        interaction = sums.var(axis=0, ddof=1) @ weights / seeds
        of_seeds = max(scores.mean(axis=1).var(ddof=1) / seeds - interaction, 0.0)
        half = np.hypot(half, t_quantile((1 + level) / 2, seeds - 1) * np.sqrt(of_seeds))
    # No mean lies outside of the scores' range, such as 0 to 1.
    ends = np.clip([scores.mean() - half, scores.mean() + half], scores.min(), scores.max())
    return float(ends[0]), float(ends[1])


def level_of_each(
    leads: Sequence[np.ndarray], clusters: np.ndarray | None = None, level: float = 0.95
) -> float:
    """Return the level of each lead's interval at which all of them hold together at `level`.

    `leads` are score differences (seed, example), one per baseline. The leads are correlated, for
    the network is the same: the level is that of the largest of correlated normal variables
    (Hothorn, Bretz and Westfall, Simultaneous Inference in General Parametric Models, 2008).
    """
    sums = np.stack([_cluster_sums(lead, clusters)[0].mean(axis=0) for lead in leads])
    covariance = sums @ sums.T
    if (seeds := len(leads[0])) > 1:
        means = np.stack([lead.mean(axis=1) for lead in leads])
        covariance = covariance + np.cov(means).reshape(covariance.shape) / seeds
    spread = np.sqrt(np.maximum(covariance.diagonal(), np.finfo(float).tiny))
    correlation = covariance / np.outer(spread, spread)
    draws = np.random.default_rng(0).multivariate_normal(
        np.zeros(len(leads)), correlation, DRAWS, check_valid="ignore"
    )
    return float(2 * NormalDist().cdf(np.quantile(np.abs(draws).max(axis=1), level)) - 1)


@cache
def t_quantile(share: float, freedom: float) -> float:
    """Return the quantile of Student's t for a share of at least one half.

    With t = √freedom · tan θ the density over θ is proportional to cos θ to the power freedom - 1.
    """
    freedom = min(freedom, MOST_DEGREES)
    angles = np.linspace(0, math.pi / 2, 100_001)
    middle = np.cos((angles[1:] + angles[:-1]) / 2) ** (freedom - 1)
    shares = np.concatenate([[0.0], np.cumsum(middle)])
    angle = np.interp(2 * share - 1, shares / shares[-1], angles)
    return math.sqrt(freedom) * math.tan(float(angle))


def _freedom(shares: np.ndarray, weights: np.ndarray) -> float:
    """Return the degrees of freedom of the weighted sum of squares of `mean_interval`, were the
    examples independent: twice its squared mean over its variance."""
    # The squares are s'(D + c1' + 1c')s of the clusters' sums s, whose variances are the shares.
    own = weights * shares
    c = own @ shares / 2 - own
    mean = shares @ (weights + 2 * c)
    half_variance = 2 * shares @ c**2 + 2 * (shares @ c) ** 2
    half_variance += shares**2 @ (weights * (weights + 4 * c))
    return float(mean**2 / half_variance)


def _cluster_sums(scores: np.ndarray, clusters: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum each seed's deviations from its mean by cluster (seed, cluster), over the examples, and
    return each cluster's share of these (cluster,)."""
    seeds, count = scores.shape
    length = min(objective.BLOCK_LENGTH, max(1, count // 3))  # one block shows no variance
    groups = np.arange(count) // length if clusters is None else clusters
    _, places = np.unique(groups, return_inverse=True)
    deviations = (scores - scores.mean(axis=1, keepdims=True)) / count
    sums = np.stack([np.bincount(places, row) for row in deviations]).reshape(seeds, -1)
    return sums, np.bincount(places) / count
