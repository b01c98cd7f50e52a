"""What a person would look at for this problem."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..interfaces import Arrays
from . import baseline, clock, objective
from .contract import QUANTILES
from .data import Dataset

BLUE, GREY, BLACK = "#1f5fa8", "#8a8f98", "#22252b"
LAGS = 56  # windows apart, seven horizons of eight windows


def draw(
    dataset: Dataset, outputs: Arrays, details: dict[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """(file name, caption, figure) of each picture, for the chosen network on the test split."""
    yield (
        "forecasts.png",
        "Forecasts of the test split against the truth: six origins from the best to the worst by "
        "mean error (title: start, MASE), with the 80 % interval.",
        _forecasts(dataset, outputs),
    )
    yield (
        "steps.png",
        "Error by steps ahead, network (one seed) and baselines, on the test split.",
        _steps(dataset, outputs),
    )
    yield (
        "coverage.png",
        "How often the truth lies below each quantile and inside of the 80 % interval, by steps "
        "ahead (dashed: as it should be).",
        _coverage(dataset, outputs),
    )
    yield (
        "residuals.png",
        "Autocorrelation of the forecasts' errors: of one step ahead, and of the last one. Windows "
        "closer than a horizon share steps; what lies beyond is structure the network missed. Of "
        "several series the first is shown.",
        _residuals(dataset, outputs),
    )


def _forecasts(dataset: Dataset, outputs: Arrays) -> Figure:
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
        axis.plot(before, test["history"][row, -past:] * unit + center, color=GREY, linewidth=1)
        axis.plot(after, test["target"][row] * unit + center, color=BLACK, linewidth=1.2)
        axis.fill_between(after, low, high, color=BLUE, alpha=0.22, linewidth=0)
        axis.plot(after, median, color=BLUE, linewidth=1.6)
        (start,) = clock.texts([int(test["origin"][row])], clock.EPOCH, contract.zone)
        name = dataset.series[test["series"][row]].id
        title = " ".join(filter(None, [name, start.replace("T", " ")[:16], f"({error[row]:.2f})"]))
        axis.set_title(title, fontsize=9)
        _plain(axis)
    figure.supxlabel(f"steps of {clock.name(contract.step)} from the origin", fontsize=9)
    figure.supylabel(contract.target, fontsize=9)
    labels = ["past", "truth", "80 % interval", "median"]
    handles = [*figure.axes[0].lines[:2], figure.axes[0].collections[0], figure.axes[0].lines[2]]
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def _steps(dataset: Dataset, outputs: Arrays) -> Figure:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    steps = np.arange(1, dataset.contract.horizon + 1)
    rows = [("Network", outputs, BLUE, 2.4)]
    shades = ["#c9a227", "#b5651d", "#7a8f3c", "#6d6f73", "#a05a8c"]
    for (name, found), shade in zip(baseline.predictions(dataset), shades, strict=False):
        rows.append((name, found, shade, 1.2))
    for name, found, color, width in rows:
        error = np.abs(found["quantiles"][:, :, 1] - dataset.test["target"]).mean(axis=0)
        axis.plot(steps, error, color=color, linewidth=width, label=name, marker=".")
    axis.set(xlabel="steps ahead", ylabel=objective.METRICS["mase"].title, ylim=(0, None))
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _plain(axis)
    return figure


def _coverage(dataset: Dataset, outputs: Arrays) -> Figure:
    quantiles, target = outputs["quantiles"], dataset.test["target"]
    steps = np.arange(1, dataset.contract.horizon + 1)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, (share, color) in enumerate(zip(QUANTILES, (GREY, BLUE, BLACK), strict=True)):
        below = (target <= quantiles[:, :, place]).mean(axis=0)
        left.plot(
            steps, 100 * below, color=color, marker=".", label=f"{100 * share:.0f} % quantile"
        )
        left.axhline(100 * share, color=color, linestyle="--", linewidth=0.8)
    inside = objective.covered(quantiles, target).mean(axis=0)
    right.plot(steps, 100 * inside, color=BLUE, marker=".")
    right.axhline(100 * (QUANTILES[-1] - QUANTILES[0]), color=BLUE, linestyle="--", linewidth=0.8)
    left.set(xlabel="steps ahead", ylim=(0, 100))
    right.set(xlabel="steps ahead")
    right.set_title("truth inside of the 80 % interval, %", fontsize=10)
    left.set_title("truth below the quantile, %", fontsize=10)
    left.legend(frameon=False, fontsize=8, loc="center", bbox_to_anchor=(0.5, 0.3), ncols=3)
    for axis in (left, right):
        _plain(axis)
    return figure


def _residuals(dataset: Dataset, outputs: Arrays) -> Figure:
    test, contract = dataset.test, dataset.contract
    own = np.flatnonzero(test["series"] == test["series"][0])
    own = own[np.argsort(test["origin"][own], kind="stable")]
    error = (outputs["quantiles"][:, :, 1] - test["target"])[own]
    between = np.diff(test["origin"][own])
    apart = int(between[between > 0].min()) // contract.step
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, step in zip(axes, sorted({0, contract.horizon - 1}), strict=False):
        found = autocorrelation(error[:, step], min(LAGS, len(error) - 2))
        lags = apart * np.arange(len(found))
        axis.vlines(lags[1:], 0, found[1:], color=BLUE, linewidth=1.6)
        axis.axhline(0, color=BLACK, linewidth=0.8)
        for side in (-1.96, 1.96):
            axis.axhline(side / np.sqrt(len(error)), color=GREY, linestyle="--", linewidth=0.8)
        axis.axvline(contract.horizon, color=GREY, linewidth=0.8)
        axis.set(xlabel="steps between origins", title=f"errors of step {step + 1}", ylim=(-1, 1))
        _plain(axis)
    axes[0].set_ylabel("autocorrelation")
    return figure


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """The sample autocorrelation (lags + 1,) of a series at 0, 1, … lags."""
    centered = values - values.mean()
    total = max(float(centered @ centered), np.finfo(float).tiny)
    return np.array(
        [centered[lag:] @ centered[: len(centered) - lag] / total for lag in range(lags + 1)]
    )


def _plain(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
