"""Figures of every task: the course of training, and the comparison with the baselines."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..palette import BLUE, CYCLE, GREY
from ..task.objective import METRICS, PRIMARY_METRIC
from ..training.documents import Evaluation
from ..training.runs import Run


def curves(run: Run) -> Figure:
    """Draw the training loss and the primary metric on validation, a line per seed."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    metric = METRICS[PRIMARY_METRIC]
    for axis in (left, right):
        axis.set_prop_cycle(color=CYCLE)
    for seed in run.settings.train.seeds:
        state = run.history(seed)
        epochs = range(1, len(state.history) + 1)
        left.plot(epochs, [row["loss"] for row in state.history], label=f"seed {seed}")
        values = [row[PRIMARY_METRIC] * metric.scale for row in state.history]
        (line,) = right.plot(epochs, values)
        right.plot(state.best_epoch, values[state.best_epoch - 1], "o", color=line.get_color())
    left.set(xlabel="epoch", ylabel="loss", title="training")
    right.set(xlabel="epoch", ylabel=metric.title, title="validation (dot: epoch kept)")
    left.legend(frameon=False)
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def comparison(evaluation: Evaluation) -> Figure:
    """Draw the primary metric of the network and of each baseline with its interval."""
    metric = METRICS[PRIMARY_METRIC]
    network = evaluation.network
    rows = [("Network", network.mean[PRIMARY_METRIC], network.interval, BLUE)]
    for name, baseline in evaluation.baselines.items():
        rows.append((name, baseline.metrics[PRIMARY_METRIC], baseline.interval, GREY))
    figure = Figure(figsize=(8, 0.8 + 0.4 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for height, (_, value, (low, high), color) in enumerate(rows):
        ends = [low * metric.scale, high * metric.scale]
        axis.plot(ends, [height, height], color=color, linewidth=2.5, solid_capstyle="round")
        axis.plot(value * metric.scale, height, "o", color=color)
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axis.set(xlabel=f"{metric.title} (test, 95 % interval)", ylim=(len(rows) - 0.5, -0.5))
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return figure
