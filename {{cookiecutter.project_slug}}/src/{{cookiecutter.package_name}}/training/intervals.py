"""Confidence intervals of mean scores over seeds and test examples that resemble each other."""

import math

import numpy as np

from .documents import Interval

MOST_DEGREES = 1e5  # of freedom: beyond, Student's t is the normal distribution


def mean_interval(
    scores: np.ndarray, block: int = 1, level: float = 0.95, clusters: np.ndarray | None = None
) -> Interval:
    """Return the interval of the mean of `scores` (seed, example) over new seeds and new examples.

    Seeds and examples are crossed random effects: the variances of both add up, less that of their
    interaction, which each of them contains. Student's t has Satterthwaite's degrees of freedom, so
    three seeds that differ widen the interval as much as three values do. Searle, Casella and
    McCulloch, Variance Components, 1992, chapter 4. Of a single seed only examples vary.

    Examples that resemble each other count together: those of the same number in `clusters` (n,),
    or else neighbours, in circular blocks of length `block` (Politis and Romano, 1992). The ends
    stay within the range of the scores.
    """
    seeds, count = scores.shape
    over_seeds = scores.mean(axis=0, keepdims=True)
    groups = count / block if clusters is None else len(np.unique(clusters))
    if clusters is None and groups < 3:  # of one block nothing would vary
        block = max(1, count // 3)
        groups = count / block
    variances = [float(_variances(over_seeds, block, clusters)[0])]
    degrees = [max(groups - 1, 1.0)]
    if seeds > 1:
        of_seeds = float(scores.mean(axis=1).var(ddof=1)) / seeds
        rest = scores - over_seeds - scores.mean(axis=1, keepdims=True) + scores.mean()
        both = float(_variances(rest, block, clusters).mean()) / (seeds - 1)
        variances = [max(variances[0] - both, 0.0), of_seeds]
        degrees.append(seeds - 1)
    total, mean = sum(variances), float(scores.mean())
    if not total:
        return mean, mean
    freedom = total**2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
    half = t_quantile((1 + level) / 2, freedom) * math.sqrt(total)
    return max(mean - half, float(scores.min())), min(mean + half, float(scores.max()))


def _variances(scores: np.ndarray, block: int, clusters: np.ndarray | None) -> np.ndarray:
    """Return the variance (row,) of the mean of each row of scores (row, example)."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    count = scores.shape[1]
    if clusters is not None:
        _, places = np.unique(clusters, return_inverse=True)
        groups = int(places.max()) + 1
        sums = np.stack([np.bincount(places, row, groups) for row in centred])
        return (sums**2).sum(axis=1) / count**2 * groups / max(groups - 1, 1)
    ends = np.cumsum(np.concatenate([centred, centred[:, :block]], axis=1), axis=1)
    sums = ends[:, block:] - ends[:, :-block]  # of the block that starts after each example
    groups = count / block
    return (sums**2).mean(axis=1) / block / count * groups / max(groups - 1, 1)


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
