"""Drift: do the live values of a feature still come from the distribution the model was judged on?

A feature has drifted when the difference is both significant and large. Either alone misleads: with
many rows the smallest difference becomes significant, with few rows any index of distance is large
by chance. What is counted are *independent* rows: neighbouring rows of a time series say nearly the
same, so both tests work with effective numbers of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..bundle.reference import effective_sample_size, round_values
from .stats import chi_squared_p, holm, kolmogorov_distance, kolmogorov_p, pooled, psi

Kind = Literal["numbers", "categories"]

BLOCK_COUNTS = 2, 4  # of a live window, fewest and most, each with a mean of its own
ROWS_PER_BLOCK = 75  # rows of a block, where there are enough for more than the fewest


@dataclass(frozen=True)
class FeatureDrift:
    """What was found of one feature; `psi` is corrected for the part that chance explains."""

    feature: str
    kind: Kind
    rows: int  # live values that count
    effective: float  # how many independent rows they are worth
    psi: float
    statistic: str
    value: float
    p_value: float
    adjusted_p: float  # Holm's, over all features with enough rows
    drifted: bool
    why: str


def compare_distributions(
    reference: Mapping[str, Mapping[str, Any]],
    live: Mapping[str, np.ndarray],
    alpha: float = 0.01,
    least_psi: float = 0.1,
    fewest: int = 100,
) -> list[FeatureDrift]:
    """Compare live values (m,) by feature, in the order of their rows, with those of a bundle.

    With no drift anywhere, some feature is called drifted with probability at most `alpha` (Holm,
    Scandinavian Journal of Statistics 6 (1979)). Drifted means adjusted p-value < `alpha`, index of
    at least `least_psi` and at least `fewest` live rows. The usual reading of the index is Siddiqi,
    Credit Risk Scorecards (2006): below 0.1 small, from 0.25 large.
    """
    names = [*reference, *(name for name in live if name not in reference)]
    found = [_compare(name, reference.get(name), live.get(name)) for name in names]
    judged = [row for row in found if row.statistic and row.rows >= fewest]
    adjusted = dict(zip(map(id, judged), holm([row.p_value for row in judged]), strict=True))
    return [
        _verdict(replace(row, adjusted_p=adjusted[id(row)]), alpha, least_psi)
        if id(row) in adjusted
        else _unjudged(row, fewest)
        for row in found
    ]


def _compare(name: str, expected: Mapping[str, Any] | None, values: Any) -> FeatureDrift:
    array = np.asarray([] if values is None else values).ravel()
    text = "edges" not in expected if expected else array.dtype.kind in "USO"
    kind: Kind = "categories" if text else "numbers"
    skipped = FeatureDrift(name, kind, 0, 0.0, 0.0, "", 0.0, 1.0, 1.0, False, "skipped: ")
    if expected is None:
        return replace(skipped, why="skipped: the reference does not have it")
    counted = _total(expected)
    if not counted or not (text or "sample" in expected):
        return replace(skipped, why="skipped: the reference holds nothing to compare with")
    if len(array) and text != (array.dtype.kind in "USO"):
        return replace(skipped, why=f"skipped: the live values are not {kind}")
    usable = (
        array.astype(str) if text else round_values(array[np.isfinite(array.astype(np.float64))])
    )
    if not len(usable):
        return replace(skipped, why="skipped: there is no usable live value")
    independent = float(expected.get("effective", counted))
    # A short window hardly shows how slowly its values change: no better than the reference is.
    most = max(1.0, len(usable) * min(1.0, independent / counted))
    blocks = int(np.clip(len(usable) // ROWS_PER_BLOCK, *BLOCK_COUNTS))
    effective = min(most, effective_sample_size(usable, blocks))
    test = _categories if text else _numbers
    return FeatureDrift(
        name,
        kind,
        len(usable),
        effective,
        *test(expected, usable, independent, effective),
        adjusted_p=1.0,
        drifted=False,
        why=f" ({len(array) - len(usable)} not finite)" if len(usable) < len(array) else "",
    )


def _total(expected: Mapping[str, Any]) -> int:
    counts = expected["counts"]
    return sum(counts.values() if isinstance(counts, Mapping) else counts)


def _unjudged(row: FeatureDrift, fewest: int) -> FeatureDrift:
    if not row.statistic:
        return row
    why = f"not judged: {row.rows} rows, at least {fewest} are needed"
    return replace(row, why=why + row.why)


def _verdict(row: FeatureDrift, alpha: float, least_psi: float) -> FeatureDrift:
    significant, large = row.adjusted_p < alpha, row.psi >= least_psi
    why = {
        (True, True): "drifted: significant and large",
        (True, False): "significant, but too small or of too few rows to matter",
        (False, True): "large, but chance can do that",
        (False, False): "no drift found",
    }[significant, large]
    return replace(row, drifted=significant and large, why=why + row.why)


def _numbers(
    expected: Mapping[str, Any], values: np.ndarray, independent: float, effective: float
) -> tuple[float, str, float, float]:
    """Index, statistic's name, value and p-value of numbers."""
    # Two more bins take what lies outside the reference: a constant may have become another.
    edges = np.array([-np.inf, *expected["edges"], np.inf])
    edges[-2] = np.nextafter(edges[-2], np.inf)  # the largest value belongs to the last bin
    counts = np.histogram(values, edges)[0]
    index = psi(np.array([0, *expected["counts"], 0]), counts, independent, effective)
    gap = kolmogorov_distance(np.array(expected["sample"]), values)
    return index, "Kolmogorov-Smirnov", gap, kolmogorov_p(gap, independent, effective)


def _categories(
    expected: Mapping[str, Any], values: np.ndarray, independent: float, effective: float
) -> tuple[float, str, float, float]:
    """Index, statistic's name, value and p-value of text."""
    names, counts = np.unique(values, return_counts=True)
    live = dict(zip(names.tolist(), counts.tolist(), strict=True))
    both = list(dict.fromkeys([*expected["counts"], *live]))  # those never seen before, too
    known = np.array([expected["counts"].get(name, 0) for name in both], np.float64)
    new = np.array([live.get(name, 0) for name in both], np.float64)
    # Counts of rows that depend on each other are divided by their design effect: Rao and Scott,
    # Journal of the American Statistical Association 76 (1981).
    counts = pooled(np.stack([known / known.sum() * independent, new / new.sum() * effective]))
    index = psi(counts[0], counts[1], independent, effective)
    return index, "chi-squared", *chi_squared_p(counts)


def drift_table(found: list[FeatureDrift]) -> list[str]:
    """Lines of a Markdown table, the drifted features first."""
    lines = ["| Feature | Rows | Independent | PSI | Statistic | Adjusted p | Finding |"]
    lines.append("|---|---:|---:|---:|---|---:|---|")
    for row in sorted(found, key=lambda row: not row.drifted):
        start = f"| {row.feature} | {row.rows} | {row.effective:.0f} |"
        shown = f" {row.psi:.3f} | {row.statistic} {row.value:.3g} | {row.adjusted_p:.2g} |"
        lines.append(f"{start}{shown if row.statistic else ' | | |'} {row.why} |")
    return lines
