"""Pictures that every task has: the course of training, and the comparison with the baselines."""

from typing import Any

from matplotlib.figure import Figure

from ..task.objective import METRICS, PRIMARY_METRIC
from ..training.runs import Run

BLUE, GREY = "#1f5fa8", "#8a8f98"


def curves(run: Run) -> Figure:
    """Loss on the training split and the deciding metric on validation, a line per seed."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = METRICS[PRIMARY_METRIC]
    for seed in run.settings.train.seeds:
        history = run.history(seed)
        epochs = range(1, len(history["history"]) + 1)
        left.plot(epochs, [row["loss"] for row in history["history"]], label=f"seed {seed}")
        values = [row[PRIMARY_METRIC] * shown.scale for row in history["history"]]
        (line,) = right.plot(epochs, values)
        best = history["best_epoch"]
        right.plot(best, values[best - 1], "o", color=line.get_color())
    left.set(xlabel="epoch", ylabel="loss", title="training")
    right.set(xlabel="epoch", ylabel=shown.title, title="validation (dot: best epoch)")
    left.legend(frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def comparison(evaluation: dict[str, Any]) -> Figure:
    """The deciding metric of the network and each baseline with its interval."""
    shown = METRICS[PRIMARY_METRIC]
    network = evaluation["network"]
    rows = [("Network", network["mean"][PRIMARY_METRIC], network["interval"], BLUE)]
    for name, row in evaluation["baselines"].items():
        rows.append((name, row["metrics"][PRIMARY_METRIC], row["interval"], GREY))
    figure = Figure(figsize=(8, 0.8 + 0.4 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for height, (_, value, (low, high), color) in enumerate(rows):
        ends = [low * shown.scale, high * shown.scale]
        axis.plot(ends, [height, height], color=color, linewidth=2.5, solid_capstyle="round")
        axis.plot(value * shown.scale, height, "o", color=color)
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axis.set(xlabel=f"{shown.title} (test, 95 % interval)", ylim=(len(rows) - 0.5, -0.5))
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return figure
