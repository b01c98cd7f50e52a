"""Plot drift: the validation set against recent requests and predictions."""

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
from ..palette import BLUE, GREY

MAX_PANELS, COLUMNS = 12, 3
MAX_BARS = 8  # of the most frequent categories
BINS = 30
REFERENCE: dict[str, Any] = {"label": "reference", "color": GREY, "alpha": 0.5}
ONLINE: dict[str, Any] = {"label": "online", "color": BLUE}


def draw_drift(
    reference: Mapping[str, Mapping[str, Any]],
    online: Mapping[str, np.ndarray],
    drift: list[FeatureDrift],
    path: Path,
) -> None:
    """Write a PNG with a panel per feature, drifted ones first; `online` holds arrays (n,)."""
    compared = [row for row in drift if row.statistic]
    panels = sorted(compared, key=lambda row: (not row.drifted, -row.psi))[:MAX_PANELS]
    columns = max(1, min(COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(3.6 * columns, 0.4 + 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for row, axis in zip(panels, axes, strict=False):
        draw = _draw_bars if row.kind == "categories" else _draw_histograms
        draw(axis, reference[row.feature], np.asarray(online[row.feature]).ravel())
        verdict = "drifted" if row.drifted else "not drifted"
        axis.set_title(f"{row.feature}\nPSI {row.psi:.2f}, {verdict}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if panels:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    write_figure(path, figure)


def _draw_histograms(axis: Axes, expected: Mapping[str, Any], values: np.ndarray) -> None:
    """Draw the shares of rows in common bins, without the outermost values of either side."""
    values = values.astype(np.float64)
    sides = np.asarray(expected["sample"]), values[np.isfinite(values)]
    ends = [np.quantile(side, (0.005, 0.995)) for side in sides]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    whole = all((side == side.round()).all() for side in sides) and high - low < BINS
    bins = np.linspace(low, high if high > low else low + 1, BINS + 1)
    if whole:  # one bar for each number
        bins = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    filled: dict[str, Any] = {**REFERENCE, "histtype": "stepfilled", "linewidth": 0}
    outline: dict[str, Any] = {**ONLINE, "histtype": "step", "linewidth": 1.5}
    for side, style in zip(sides, (filled, outline), strict=True):
        axis.hist(side, bins, weights=np.full(len(side), 1 / len(side)), **style)
    axis.set_yticks([])


def _draw_bars(axis: Axes, expected: Mapping[str, Any], values: np.ndarray) -> None:
    """Draw the shares of the most frequent categories."""
    total = sum(expected["counts"].values())
    shares = {name: [count / total, 0.0] for name, count in expected["counts"].items()}
    names, counts = np.unique(values.astype(str), return_counts=True)
    for name, count in zip(names.tolist(), counts.tolist(), strict=True):
        shares.setdefault(name, [0.0, 0.0])[1] = count / len(values)
    top = sorted(shares, key=lambda name: -max(shares[name]))[:MAX_BARS]
    for side, (offset, style) in enumerate([(-0.2, REFERENCE), (0.2, ONLINE)]):
        places = [place + offset for place in range(len(top))]
        axis.barh(places, [shares[name][side] for name in top], 0.38, **style)
    ticks = [" ".join(name.split())[:18] for name in top]
    axis.set_yticks(range(len(ticks)), ticks, parse_math=False)
    axis.invert_yaxis()
