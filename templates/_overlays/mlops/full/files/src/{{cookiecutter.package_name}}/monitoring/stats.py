"""Statistics of drift, in NumPy alone: the server has no SciPy."""

from __future__ import annotations

import math

import numpy as np

MIN_EXPECTED = 5.0  # rows in every cell, for the chi-squared approximation
PRIOR_ROWS = 0.5  # added to each bin, so that no share is 0


def pool_rare_columns(table: np.ndarray) -> np.ndarray:
    """Merge the rare columns of counts (2, k) until 5 rows are expected in each cell.

    Source of the rule: Cochran, Biometrics 10 (1954).
    """
    expected = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    rare = expected < MIN_EXPECTED
    pool = table[:, rare].sum(axis=1, keepdims=True)
    kept = table[:, ~rare][:, np.argsort(-expected[~rare], kind="stable")]
    if not rare.any():
        return kept
    if expected[rare].sum() >= MIN_EXPECTED or not kept.shape[1]:
        return np.hstack([kept, pool])
    kept[:, -1:] += pool
    return kept


def chi_squared_test(table: np.ndarray) -> tuple[float, float]:
    """Return Pearson's statistic that both rows of counts (2, k) have one distribution, and its
    p-value."""
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    value = float(((table - expected) ** 2 / expected).sum())
    freedom = table.shape[1] - 1
    return value, upper_gamma(freedom / 2, value / 2) if freedom else 1.0


def psi(reference: np.ndarray, online: np.ndarray, reference_ess: float, ess: float) -> float:
    """Return the population stability index of counts (k,) and (k,), less what chance alone adds,
    at least 0.

    With no drift the index is (1/n + 1/m) times a chi-squared variable of k - 1 degrees of freedom
    (Yurdakul and Naranjo, Journal of Risk Model Validation 14 (2020)), so its mean is subtracted; n
    and m are the effective sample sizes, and k counts the bins that either side fills.
    """
    filled = (reference + online) > 0
    bins = int(filled.sum())
    shares = [
        (counts[filled] / counts.sum() * rows + PRIOR_ROWS) / (rows + PRIOR_ROWS * bins)
        for counts, rows in ((reference, reference_ess), (online, ess))
    ]
    index = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    return max(0.0, index - (bins - 1) * (1 / reference_ess + 1 / ess))


def ks_statistic(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest distance between the empirical distribution functions of (n,) and (m,)."""
    first, second = np.sort(first), np.sort(second)
    points = np.concatenate([first, second])
    shares = [np.searchsorted(side, points, side="right") / len(side) for side in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def ks_p_value(statistic: float, first_ess: float, second_ess: float) -> float:
    """Return the p-value of that distance between samples of these effective sizes.

    Kolmogorov's limit with the small-sample correction of Stephens, Journal of the Royal
    Statistical Society B 32 (1970). Ties make it too large, never too small.
    """
    root = math.sqrt(first_ess * second_ess / (first_ess + second_ess))
    scaled = (root + 0.12 + 0.11 / root) * statistic
    if scaled < 0.2:  # where the series converges slowly; 1 to 12 digits
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def upper_gamma(a: float, x: float) -> float:
    """Return the regularised incomplete gamma function Q(a, x) for a = 1/2, 1, 3/2, …

    Q(k/2, x/2) is the upper tail of chi-squared with k degrees of freedom. By the recurrence NIST
    DLMF 8.8.6 from Q(1, x) = exp(-x) or Q(1/2, x) = erfc(sqrt(x)): a sum of positive terms.
    """
    if x <= 0:
        return 1.0
    start, first = (1.0, math.exp(-x)) if a == int(a) else (0.5, math.erfc(math.sqrt(x)))
    orders = (start + step for step in range(round(a - start)))
    terms = [math.exp(order * math.log(x) - x - math.lgamma(order + 1)) for order in orders]
    return min(1.0, first + math.fsum(terms))


def holm(p_values: list[float]) -> list[float]:
    """Return Holm's adjusted p-values in the same order; below alpha means rejected."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
