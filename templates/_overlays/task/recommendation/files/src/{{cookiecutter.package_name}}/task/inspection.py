"""What the command `data` says about interactions: users, items, the long tail."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..interfaces import Finding, Inspection
from ..palette import BLUE
from .data import Dataset
from .settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLE: tuple[str, ...] = ("history", "target")
ANSWER: str | None = None
MANY_NEW = 0.05  # share of held-out interactions with items that training has not seen
FEW_USERS = 100  # in test: NDCG is then known to about ± 5 points


def inspect(dataset: Dataset, settings: Settings) -> Inspection:
    """Count users, items and interactions of the splits; measure the long tail."""
    counts = np.array(dataset.contract.counts)
    order = -np.sort(-counts)
    users = [
        ["Split", "Users", "Median items", "Most items", "Held out", "Of items not in training"]
    ]
    findings = []
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        history, target = ((split[key] > 0).sum(axis=1) for key in ("history", "target"))
        total, held_out = history + target, split["target"][split["target"] > 0]
        new = float((counts[held_out - 1] == 0).mean())
        row = [f"{len(total):,}", f"{np.median(total):.0f}", f"{total.max():,}"]
        users.append([name, *row, f"{len(held_out):,}", f"{new:.1%}"])
        if new > MANY_NEW:
            text = f"{new:.0%} of what {name} users chose are items that no training user has"
            findings.append(Finding("warning", f"{text}; they cannot be recommended (data.core)"))
    if (tested := len(dataset.test["seen"])) < FEW_USERS:
        setting = "data.newest" if settings.data.split == "time" else "data.folds"
        text = f"the test split has only {tested} users; {setting} can enlarge it"
        findings.append(Finding("warning", text))
    tail = int(np.searchsorted(np.cumsum(order), 0.8 * order.sum()) + 1)
    items = [
        ["Items", ""],
        ["number", f"{len(counts):,}"],
        ["interactions in training", f"{counts.sum():,}"],
        ["of the median item", f"{np.median(counts):.0f}"],
        ["of the most popular item", f"{order[0]:,}"],
        ["items with 80 % of the interactions", f"{tail:,} ({tail / len(counts):.0%})"],
        ["items without any in training", f"{(counts == 0).sum():,}"],
    ]
    return Inspection({"Users": users, "Items": items}, findings, partial(plot_data, dataset))


def plot_data(dataset: Dataset) -> "Figure":
    """Draw items per training user, and the interactions of the items from the most popular on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    train, counts = dataset.train, -np.sort(-np.array(dataset.contract.counts))
    total = (train["history"] > 0).sum(axis=1) + (train["target"] > 0).sum(axis=1)
    edges = np.unique(np.geomspace(total.min(), total.max() + 1, 30).astype(int))
    left.hist(total, bins=edges, color=BLUE)
    left.set(xlabel="items of a training user", ylabel="users", xscale="log")
    ticks = np.unique(np.geomspace(total.min(), total.max(), 5).astype(int))
    left.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    left.minorticks_off()
    right.plot(np.arange(1, len(counts) + 1), np.maximum(counts, 0.5), color=BLUE)
    right.set(xlabel="item, the most popular first", ylabel="its training users", yscale="log")
    right.set_xscale("log")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
