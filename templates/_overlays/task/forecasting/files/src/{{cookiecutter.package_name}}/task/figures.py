"""Plots for the report: forecasts, errors by step, coverage, residuals."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..arrays import Arrays
from ..palette import BLACK, BLUE, CYCLE, GREY
from . import baseline, clock, objective
from .contract import QUANTILES
from .data import Dataset

MAX_LAGS = 56  # windows: seven horizons of eight windows each


def plot_results(
    dataset: Dataset, outputs: Arrays, details: dict[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """Yield (file name, caption, figure) for the chosen network on the test split."""
    yield (
        "forecasts.png",
        "Forecasts and actual values of the test split: six origins from the best to the worst by "
        "mean error (title: start, MASE), with the 80 % interval.",
        _plot_forecasts(dataset, outputs),
    )
    yield (
        "steps.png",
        "Error by steps ahead of the network (one seed) and the baselines, on the test split.",
        _plot_steps(dataset, outputs),
    )
    yield (
        "coverage.png",
        "Share of actual values below each quantile and inside the 80 % interval, by steps ahead "
        "(dashed: nominal).",
        _plot_coverage(dataset, outputs),
    )
    yield (
        "residuals.png",
        "Autocorrelation of forecast errors, one step ahead and at the last step. Windows closer "
        "than a horizon share steps; correlation beyond that is structure the network missed. Of "
        "several series the first is plotted.",
        _plot_residuals(dataset, outputs),
    )


def _plot_forecasts(dataset: Dataset, outputs: Arrays) -> Figure:
    test, contract = dataset.test, dataset.contract
    error = np.abs(outputs["quantiles"][:, :, 1] - test["target"]).mean(axis=1)
    order = np.argsort(error, kind="stable")
    rows = order[np.linspace(0, len(order) - 1, 6).round().astype(int)]
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    past = min(2 * contract.horizon, contract.window)
    before, after = np.arange(1 - past, 1), np.arange(1, contract.horizon + 1)
    for axis, row in zip(figure.subplots(2, 3).flat, rows, strict=True):
        unit, center = test["unit"][row], test["center"][row]
        low, median, high = (outputs["quantiles"][row] * unit + center).T
        axis.plot(before, test["history"][row][-past:] * unit + center, color=GREY, linewidth=1)
        axis.plot(after, test["target"][row] * unit + center, color=BLACK, linewidth=1.2)
        axis.fill_between(after, low, high, color=BLUE, alpha=0.22, linewidth=0)
        axis.plot(after, median, color=BLUE, linewidth=1.6)
        (start,) = clock.format_times([int(test["origin"][row])], clock.EPOCH, contract.zone)
        name = dataset.series[test["series"][row]].id
        title = " ".join(filter(None, [name, start.replace("T", " ")[:16], f"({error[row]:.2f})"]))
        axis.set_title(title, fontsize=9)
        _style_axis(axis)
    figure.supxlabel(f"steps of {contract.frequency.name} from the origin", fontsize=9)
    figure.supylabel(contract.target, fontsize=9)
    labels = ["past", "actual", "80 % interval", "median"]
    handles = [*figure.axes[0].lines[:2], figure.axes[0].collections[0], figure.axes[0].lines[2]]
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def _plot_steps(dataset: Dataset, outputs: Arrays) -> Figure:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    steps = np.arange(1, dataset.contract.horizon + 1)
    lines = [("Network", outputs, BLUE, 2.4)]
    shades = CYCLE[1:]
    for (name, forecasts), shade in zip(baseline.fit_and_predict(dataset), shades, strict=False):
        lines.append((name, forecasts, shade, 1.2))
    for name, forecasts, color, width in lines:
        error = np.abs(forecasts["quantiles"][:, :, 1] - dataset.test["target"]).mean(axis=0)
        axis.plot(steps, error, color=color, linewidth=width, label=name, marker=".")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="steps ahead", ylabel=objective.METRICS["mase"].title, ylim=(0, None))
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _style_axis(axis)
    return figure


def _plot_coverage(dataset: Dataset, outputs: Arrays) -> Figure:
    quantiles, target = outputs["quantiles"], dataset.test["target"]
    steps = np.arange(1, dataset.contract.horizon + 1)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, (share, color) in enumerate(zip(QUANTILES, (GREY, BLUE, BLACK), strict=True)):
        below = (target <= quantiles[:, :, place]).mean(axis=0)
        name = f"{100 * share:.0f} % quantile"
        left.plot(steps, 100 * below, color=color, marker=".", label=name)
        left.axhline(100 * share, color=color, linestyle="--", linewidth=0.8)
    inside = objective.covered(quantiles, target).mean(axis=0)
    right.plot(steps, 100 * inside, color=BLUE, marker=".")
    right.axhline(100 * (QUANTILES[-1] - QUANTILES[0]), color=BLUE, linestyle="--", linewidth=0.8)
    left.set(xlabel="steps ahead", ylim=(0, 100))
    right.set(xlabel="steps ahead")
    right.set_title("actual values inside the 80 % interval, %", fontsize=10)
    left.set_title("actual values below the quantile, %", fontsize=10)
    left.legend(frameon=False, fontsize=8, loc="center", bbox_to_anchor=(0.5, 0.3), ncols=3)
    for axis in (left, right):
        _style_axis(axis)
    return figure


def _plot_residuals(dataset: Dataset, outputs: Arrays) -> Figure:
    test, contract = dataset.test, dataset.contract
    rows = np.flatnonzero(test["series"] == test["series"][0])
    rows = rows[np.argsort(test["origin"][rows], kind="stable")]
    error = (outputs["quantiles"][:, :, 1] - test["target"])[rows]
    distances = np.diff(dataset.series[test["series"][0]].find(test["origin"][rows]))
    stride = int(distances[distances > 0].min())
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, step in zip(axes, sorted({0, contract.horizon - 1}), strict=False):
        correlation = autocorrelation(error[:, step], min(MAX_LAGS, len(error) - 2))
        lags = stride * np.arange(len(correlation))
        axis.vlines(lags[1:], 0, correlation[1:], color=BLUE, linewidth=1.6)
        axis.axhline(0, color=BLACK, linewidth=0.8)
        for side in (-1.96, 1.96):
            axis.axhline(side / np.sqrt(len(error)), color=GREY, linestyle="--", linewidth=0.8)
        axis.axvline(contract.horizon, color=GREY, linewidth=0.8)
        axis.set(xlabel="steps between origins", title=f"errors of step {step + 1}", ylim=(-1, 1))
        _style_axis(axis)
    axes[0].set_ylabel("autocorrelation")
    return figure


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Compute the sample autocorrelation (lags + 1,) of values (n,) at lags 0, 1, …"""
    centered = values - values.mean()
    total = max(float(centered @ centered), np.finfo(float).tiny)
    count = len(centered)
    return np.array([centered[k:] @ centered[: count - k] / total for k in range(lags + 1)])


def _style_axis(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
