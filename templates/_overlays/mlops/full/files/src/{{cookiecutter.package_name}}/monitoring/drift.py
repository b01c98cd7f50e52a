"""Drift: do online values of a feature still come from the distribution of the validation set?

A feature has drifted when the difference is both significant and large. Either alone misleads: with
many rows the smallest difference becomes significant, with few rows any index of distance is large
by chance. Neighbouring rows of a time series are similar, so both sides enter with their effective
sample size (ESS), not with their number of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..bundle.reference import effective_sample_size, round_values
from .stats import chi_squared_test, holm, ks_p_value, ks_statistic, pool_rare_columns, psi

BLOCK_COUNTS = 2, 4  # of an online window, at least and at most, each with a mean of its own
ROWS_PER_BLOCK = 75  # where there are enough for more than the fewest blocks


@dataclass(frozen=True)
class FeatureDrift:
    """The comparison of one feature; `psi` is less what chance alone explains."""

    feature: str
    kind: Literal["numbers", "categories"]
    why: str
    rows: int = 0  # usable online values
    ess: float = 0.0  # their effective sample size
    psi: float = 0.0
    statistic: str = ""  # its name; empty when the feature could not be compared
    value: float = 0.0
    p_value: float = 1.0
    adjusted_p: float = 1.0  # Holm's, over all judged features
    judged: bool = False  # compared, on enough rows
    drifted: bool = False


def compare_distributions(
    reference: Mapping[str, Mapping[str, Any]],
    online: Mapping[str, np.ndarray],
    alpha: float = 0.01,
    min_psi: float = 0.1,
    min_rows: int = 100,
) -> list[FeatureDrift]:
    """Compare online values (m,) by feature, in the order of their rows, with a bundle's reference.

    With no drift anywhere, some feature is called drifted with probability at most `alpha` (Holm,
    Scandinavian Journal of Statistics 6 (1979)). Drifted means adjusted p-value < `alpha`, index of
    at least `min_psi` and at least `min_rows` online rows. The usual reading of the index is
    Siddiqi, Credit Risk Scorecards (2006): below 0.1 small, from 0.25 large.
    """
    names = [*reference, *(name for name in online if name not in reference)]
    compared = [_compare(name, reference.get(name), online.get(name)) for name in names]
    judged = [row for row in compared if row.statistic and row.rows >= min_rows]
    p_values = holm([row.p_value for row in judged])
    adjusted = dict(zip([row.feature for row in judged], p_values, strict=True))
    rows = []
    for row in compared:
        if row.feature in adjusted:
            p_value = adjusted[row.feature]
            significant, large = p_value < alpha, row.psi >= min_psi
            drifted = significant and large
            why = {
                (True, True): "drifted: significant and large",
                (True, False): "significant, but too small to matter",
                (False, True): "large, but not significant: may be chance",
                (False, False): "no drift found",
            }[significant, large]
            why += row.why
            row = replace(row, adjusted_p=p_value, judged=True, drifted=drifted, why=why)
        elif row.statistic:
            why = f"not judged: {row.rows} rows, at least {min_rows} are needed"
            row = replace(row, why=why + row.why)
        rows.append(row)
    return rows


def _compare(name: str, expected: Mapping[str, Any] | None, values: Any) -> FeatureDrift:
    """Compare one feature's values (m,) with its distribution, or say why it is skipped."""
    # 1. Skip what cannot be compared.
    array = np.asarray([] if values is None else values).ravel()
    text = "edges" not in expected if expected else array.dtype.kind in "USO"
    kind = "categories" if text else "numbers"
    if expected is None:
        return FeatureDrift(name, kind, "skipped: not in the reference")
    counts = expected["counts"]
    total = sum(counts.values() if text else counts)
    if not total or not (text or "sample" in expected):
        return FeatureDrift(name, kind, "skipped: the reference is empty")
    if len(array) and text != (array.dtype.kind in "USO"):
        return FeatureDrift(name, kind, f"skipped: the online values are not {kind}")
    usable = (
        array.astype(str) if text else round_values(array[np.isfinite(array.astype(np.float64))])
    )
    if not len(usable):
        return FeatureDrift(name, kind, "skipped: no usable online value")
    # 2. Effective sample sizes. A short window hardly shows autocorrelation: its ESS per row is at
    # most the reference's.
    reference_ess = float(expected.get("effective", total))
    most = max(1.0, len(usable) * min(1.0, reference_ess / total))
    blocks = int(np.clip(len(usable) // ROWS_PER_BLOCK, *BLOCK_COUNTS))
    ess = min(most, effective_sample_size(usable, blocks))
    # 3. Test and index.
    if text:
        online = Counter(usable.tolist())
        categories = dict.fromkeys([*counts, *online])  # with those never seen before
        first = np.array([counts.get(category, 0) for category in categories], np.float64)
        second = np.array([online[category] for category in categories], np.float64)
        # Counts of rows that depend on each other are divided by their design effect: Rao and
        # Scott, Journal of the American Statistical Association 76 (1981).
        rows = [first / first.sum() * reference_ess, second / second.sum() * ess]
        table = pool_rare_columns(np.stack(rows))
        index = psi(table[0], table[1], reference_ess, ess)
        statistic, (value, p_value) = "chi-squared", chi_squared_test(table)
    else:
        # Two more bins take what lies outside the reference: a constant may have changed.
        edges = np.array([-np.inf, *expected["edges"], np.inf])
        edges[-2] = np.nextafter(edges[-2], np.inf)  # the largest value belongs to the last bin
        binned = np.histogram(usable, edges)[0]
        index = psi(np.array([0, *counts, 0]), binned, reference_ess, ess)
        value = ks_statistic(np.array(expected["sample"]), usable)
        statistic, p_value = "Kolmogorov-Smirnov", ks_p_value(value, reference_ess, ess)
    lost = len(array) - len(usable)
    why = f" ({lost} not finite)" if lost else ""
    return FeatureDrift(name, kind, why, len(usable), ess, index, statistic, value, p_value)


def drift_table(rows: list[FeatureDrift]) -> list[str]:
    """Return the lines of a Markdown table, the drifted features first."""
    lines = ["| Feature | Rows | ESS | PSI | Statistic | Adjusted p | Finding |"]
    lines.append("|---|---:|---:|---:|---|---:|---|")
    for row in sorted(rows, key=lambda row: not row.drifted):
        figures = f" {row.psi:.3f} | {row.statistic} {row.value:.3g} | {row.adjusted_p:.2g} |"
        start = f"| {row.feature} | {row.rows} | {row.ess:.0f} |"
        lines.append(f"{start}{figures if row.statistic else ' | | |'} {row.why} |")
    return lines
