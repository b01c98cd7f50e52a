"""The statistics behind drift, on NumPy alone: the server does without SciPy."""

from __future__ import annotations

import math

import numpy as np

EXPECTED = 5.0  # rows in every cell, for the chi-squared approximation
PRIOR = 0.5  # rows added to each bin, so that no share is 0


def pooled(table: np.ndarray) -> np.ndarray:
    """A table (2, k) whose rare columns are made one, so that 5 rows are expected in each cell.

    Source of the rule: Cochran, Biometrics 10 (1954).
    """
    least = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    rare = least < EXPECTED
    pool = table[:, rare].sum(axis=1, keepdims=True)
    kept = table[:, ~rare][:, np.argsort(-least[~rare], kind="stable")]
    if not rare.any():
        return kept
    if least[rare].sum() >= EXPECTED or not kept.shape[1]:
        return np.hstack([kept, pool])
    kept[:, -1:] += pool
    return kept


def chi_squared_p(table: np.ndarray) -> tuple[float, float]:
    """Pearson's statistic of homogeneity of the rows of a table (2, k), and its p-value."""
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    value = float(((table - expected) ** 2 / expected).sum())
    freedom = table.shape[1] - 1
    return value, upper_gamma(freedom / 2, value / 2) if freedom else 1.0


def psi(known: np.ndarray, new: np.ndarray, independent: float, effective: float) -> float:
    """Population stability index of counts (k,) and (k,), less what chance alone adds, at least 0.

    With no drift the index is (1/n + 1/m) times a chi-squared variable of k - 1 degrees of freedom
    (Yurdakul and Naranjo, Journal of Risk Model Validation 14 (2020)), so its mean is taken off; n
    and m are the effective rows of both sides, and k counts the bins that either side fills.
    """
    filled = (known + new) > 0
    bins = int(filled.sum())
    shares = [
        (counts[filled] / counts.sum() * rows + PRIOR) / (rows + PRIOR * bins)
        for counts, rows in ((known, independent), (new, effective))
    ]
    index = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    return max(0.0, index - (bins - 1) * (1 / independent + 1 / effective))


def kolmogorov_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Largest distance between the empirical distribution functions of samples (n,) and (m,)."""
    first, second = np.sort(first), np.sort(second)
    points = np.concatenate([first, second])
    shares = [np.searchsorted(side, points, side="right") / len(side) for side in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def kolmogorov_p(distance: float, first: float, second: float) -> float:
    """P-value of that distance for samples worth `first` and `second` independent rows.

    Kolmogorov's limit with the small-sample correction of Stephens, Journal of the Royal
    Statistical Society B 32 (1970). Ties make it too large, never too small.
    """
    root = math.sqrt(first * second / (first + second))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # where the series converges slowly; 1 to twelve digits
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def upper_gamma(a: float, x: float) -> float:
    """Regularised incomplete gamma function Q(a, x); Q(k/2, x/2) is the upper tail of chi-squared.

    The series NIST DLMF 8.11.4 for small x, else the continued fraction 8.9.2 by Lentz's method.
    """
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        while term > total * 1e-16:
            a += 1
            term *= x / a
            total += term
        return max(0.0, 1 - scale * total)
    b = x + 1 - a
    c, d = math.inf, 1 / b
    fraction = d
    for k in range(1, 10_000):
        factor = -k * (k - a)
        b += 2
        d = 1 / (factor * d + b)
        c = b + factor / c
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return scale * fraction


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: below alpha where the hypothesis falls."""
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted
