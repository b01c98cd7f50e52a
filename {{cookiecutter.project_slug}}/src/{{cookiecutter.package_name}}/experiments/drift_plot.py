"""The picture of drift: what the model was judged on against what it is asked now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..files import write_figure
from ..monitoring.drift import FeatureDrift

BLUE, GREY = "#1f5fa8", "#8a8f98"
PANELS = 12
COLUMNS = 3
BARS = 8  # the most frequent categories
BINS = 30


def draw_drift(
    reference: Mapping[str, Mapping[str, Any]],
    live: Mapping[str, np.ndarray],
    found: list[FeatureDrift],
    path: Path,
) -> None:
    """Write a PNG with a panel for each compared feature: the drifted first, 12 at most."""
    shown = sorted(
        (row for row in found if row.statistic), key=lambda row: (not row.drifted, -row.psi)
    )[:PANELS]
    columns = max(1, min(COLUMNS, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(3.6 * columns, 0.4 + 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for row, axis in zip(shown, axes, strict=False):
        panel = _bars if row.kind == "categories" else _histograms
        panel(axis, reference[row.feature], np.asarray(live[row.feature]).ravel())
        verdict = "drifted" if row.drifted else "not drifted"
        axis.set_title(f"{row.feature}\nPSI {row.psi:.2f}, {verdict}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    if shown:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    write_figure(path, figure)


def _histograms(axis: Axes, expected: Mapping[str, Any], values: np.ndarray) -> None:
    """Shares of rows in common bins, without the outermost values of either side."""
    values = values.astype(np.float64)
    sides = np.asarray(expected["sample"]), values[np.isfinite(values)]
    ends = [np.quantile(side, (0.005, 0.995)) for side in sides]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    whole = all((side == side.round()).all() for side in sides) and high - low < BINS
    bins = np.linspace(low, high if high > low else low + 1, BINS + 1)
    if whole:  # one bar for each number
        bins = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    for side, color, label in zip(sides, (GREY, BLUE), ("reference", "live"), strict=True):
        weights = np.full(len(side), 1 / len(side))
        filled = color == GREY
        axis.hist(
            side,
            bins,
            weights=weights,
            histtype="stepfilled" if filled else "step",
            color=color,
            alpha=0.5 if filled else 1,
            linewidth=0 if filled else 1.5,
            label=label,
        )
    axis.set_yticks([])


def _bars(axis: Axes, expected: Mapping[str, Any], values: np.ndarray) -> None:
    """Shares of the most frequent categories."""
    names, counts = np.unique(values.astype(str), return_counts=True)
    known = np.array(list(expected["counts"].values())) / sum(expected["counts"].values())
    shares = {name: [share, 0.0] for name, share in zip(expected["counts"], known, strict=True)}
    for name, count in zip(names.tolist(), counts.tolist(), strict=True):
        shares.setdefault(name, [0.0, 0.0])[1] = count / len(values)
    shown = sorted(shares, key=lambda name: -max(shares[name]))[:BARS]
    for offset, color, label, side in ((-0.2, GREY, "reference", 0), (0.2, BLUE, "live", 1)):
        heights = [place + offset for place in range(len(shown))]
        lengths = [shares[name][side] for name in shown]
        axis.barh(heights, lengths, 0.38, color=color, label=label, alpha=1 if side else 0.5)
    axis.set_yticks(range(len(shown)), [name[:18] for name in shown])
    axis.invert_yaxis()
