"""The figure of `doctor`: what its checks measured."""

from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..palette import BLUE, GREY, ORANGE
from ..training.diagnosis import DEAD_WARNING, UPDATES, Diagnosis

LISTED = 24  # layers that fit into a panel; of more, every second, third … is named


def plot_diagnosis(found: Diagnosis) -> Figure:
    """Draw six panels: one batch, learning rates, gradients, updates, dead units, time."""
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    axes = figure.subplots(2, 3)
    for draw, axis in zip(PANELS, axes.flat, strict=True):
        draw(axis, found)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _overfit(axis: Axes, found: Diagnosis) -> None:
    axis.set(title="one batch, learned by heart", xlabel="step", ylabel="loss")
    axis.plot(found.overfit, color=BLUE)
    if found.bounds is not None:
        lines = {"zero outputs": found.bounds.zero, "lowest possible": found.bounds.floor}
        for (name, value), style in zip(lines.items(), ("--", ":"), strict=True):
            axis.axhline(value, color=GREY, linestyle=style, label=f"{name}: {value:.3g}")
        axis.legend(framealpha=1, edgecolor="white", loc="center right")


def _rates(axis: Axes, found: Diagnosis) -> None:
    test = found.range_test
    axis.set(title="learning rate range test", xlabel="learning rate", xscale="log")
    axis.set_ylabel("change of the loss, smoothed")
    if not test.rates:
        return
    axis.plot(test.rates, test.changes, color=BLUE)
    lines = {"falls fastest": (test.steepest(), GREY, "--"), "limit": (test.limit(), GREY, ":")}
    for name, (value, color, style) in (lines | {"train.lr": (found.lr, ORANGE, "-")}).items():
        axis.axvline(value, color=color, linestyle=style, label=f"{name}: {value:.2g}")
    fall = max(-min(test.changes), 1e-12)
    axis.set_ylim(-1.1 * fall, fall)
    axis.legend(framealpha=1, edgecolor="white")  # over the lines, which are as high as the panel


def _layers(axis: Axes, values: dict[str, float]) -> None:
    """Draw a dot for each layer, the first on top, on a logarithmic axis of whole decades."""
    axis.plot(list(values.values()), range(len(values)), "o", color=BLUE, markersize=4)
    axis.set(xscale="log", ylim=(len(values) - 0.5, -0.5))
    if values:
        ends = np.log10([min(values.values()), max(values.values())])
        axis.set_xlim(10 ** np.floor(ends[0] - 0.05), 10 ** np.ceil(ends[1] + 0.05))
    every = -(-len(values) // LISTED)
    names = [_short(name) for name in values][::every]
    axis.set_yticks(range(0, len(values), every), names, fontsize=7)


def _short(name: str) -> str:
    return name if len(name) <= 36 else f"…{name[-35:]}"


def _gradients(axis: Axes, found: Diagnosis) -> None:
    axis.set(title="gradient of each weight", xlabel="RMS, median over steps")
    if found.rehearsal is not None:
        _layers(axis, {k: median(v) for k, v in found.rehearsal.gradients.items() if any(v)})


def _updates(axis: Axes, found: Diagnosis) -> None:
    axis.set(title="update per step", xlabel="change / weight (shaded: unusual)")
    if found.rehearsal is not None:
        half = len(found.rehearsal.losses) // 2
        updates = found.rehearsal.updates
        _layers(axis, {k: median(updates[k][half:]) for k in found.rehearsal.matrices()})
        low, high = axis.get_xlim()
        low, high = min(low, UPDATES[0] / 3), max(high, UPDATES[1] * 3)
        axis.axvspan(low, UPDATES[0], color=ORANGE, alpha=0.12, linewidth=0)
        axis.axvspan(UPDATES[1], high, color=ORANGE, alpha=0.12, linewidth=0)
        axis.axvline(1e-3, color=GREY, linestyle="--")
        axis.set_xlim(low, high)


def _dead(axis: Axes, found: Diagnosis) -> None:
    shares = [100 * share for share, _ in found.useless.values()]
    colors = [ORANGE if share >= 100 * DEAD_WARNING else BLUE for share in shares]
    axis.set(title="dead or saturated units", xlabel="% of a layer's units", xlim=(0, 100))
    axis.barh(range(len(shares)), shares, color=colors)
    axis.set_yticks(range(len(shares)), [_short(name) for name in found.useless], fontsize=7)
    axis.set_ylim(max(len(shares), 1) - 0.5, -0.5)
    for place, share in enumerate(shares):
        axis.text(share + 1, place, f"{share:.0f}", va="center", fontsize=7)


def _seconds(axis: Axes, found: Diagnosis) -> None:
    parts = list(found.seconds)
    axis.set(title="time of an epoch", xlabel="seconds")
    axis.barh(range(len(parts)), list(found.seconds.values()), color=BLUE)
    axis.set_yticks(range(len(parts)), parts)
    axis.invert_yaxis()


PANELS = (_overfit, _rates, _gradients, _updates, _dead, _seconds)
