"""What the command `data` says about series: time, ranges, repeats, the splits in a picture."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..interfaces import Finding, Inspection
from ..palette import BLUE, GOLD, ORANGE
from . import clock
from .data import Dataset
from .settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Windows of a series may repeat by nature, and neighbours share most steps: no leak.
EXAMPLE: tuple[str, ...] = ()
ANSWER: str | None = None
SHADES = {"validation": GOLD, "test": ORANGE}
LISTED = 20  # series in the table
SHOWN = 4  # series in the picture
MANY_REPEATS = 0.5  # share of steps at which the value is the one before


def inspect(dataset: Dataset, settings: Settings) -> Inspection:
    """Tabulate the series; look for steps that only repeat, and for copies of a series."""
    rows = [["Series", "Steps", "First", "Last", "Lowest", "Mean", "Highest", "Repeats", "Filled"]]
    findings, seen, zone = [], dict[bytes, str](), dataset.contract.zone
    for series in dataset.series:
        values = series.values
        repeats = float((np.diff(values) == 0).mean())
        ends = clock.format_times(series.stamps[[0, -1]].tolist(), clock.EPOCH, zone)
        numbers = [f"{value:.4g}" for value in (values.min(), values.mean(), values.max())]
        ends = [end.replace("T", " ")[:16] for end in ends]
        filled = str(int(series.filled.sum()))
        name = series.id or dataset.contract.target
        rows.append([name, f"{len(values):,}", *ends, *numbers, f"{repeats:.0%}", filled])
        if repeats > MANY_REPEATS:
            text = f"{repeats:.0%} of the steps of {name!r} repeat the value before"
            findings.append(Finding("warning", f"{text}; is it measured that often?"))
        if (twin := seen.setdefault(values.tobytes(), name)) != name:
            findings.append(Finding("warning", f"the series {name!r} is a copy of {twin!r}"))
    if (more := len(findings) - LISTED) > 0:
        findings = [*findings[:LISTED], Finding("warning", f"and {more} more like it")]
    hidden = len(rows) - 1 - LISTED
    if hidden > 0:
        rows = [*rows[: LISTED + 1], [f"… {hidden} more", *[""] * 8]]
    return Inspection({"Series": rows}, findings, partial(plot_data, dataset))


def plot_data(dataset: Dataset) -> "Figure":
    """Draw the first series over time, with validation and test shaded."""
    from matplotlib.figure import Figure

    shown = dataset.series[:SHOWN]
    figure = Figure(figsize=(10, 1.2 + 1.9 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axis, series in zip(axes, shown, strict=True):
        times = series.stamps.astype("datetime64[s]")
        axis.plot(times, series.values, color=BLUE, linewidth=0.7)
        axis.set_ylabel(series.id or dataset.contract.target, fontsize=9)
        for name, color in SHADES.items():
            origins = np.unique(getattr(dataset, name)["origin"])
            if not len(origins):
                continue
            usual = np.median(np.diff(origins)) if len(origins) > 1 else 0
            cuts = np.flatnonzero(np.diff(origins) > 5 * max(usual, 1)) + 1
            for number, block in enumerate(np.split(origins, cuts)):
                ends = np.array([block[0], block[-1]]).astype("datetime64[s]")
                axis.axvspan(
                    *ends, color=color, alpha=0.2, linewidth=0, label=None if number else name
                )
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_title("shaded: where forecasts of validation and test start", fontsize=9)
    axes[0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure
