"""What every classifier's inspection of the data shares: the rows of each class."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..interfaces import Finding, Splits
from ..palette import BLUE, ORANGE, SKY
from .classes import short_list

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 10  # training rows of a class; from fewer little is learned, and nothing measured
LISTED = 20  # classes in the table and in the bars, the largest and the smallest
SHADES = {"train": BLUE, "validation": SKY, "test": ORANGE}


def count_classes(dataset: Splits, classes: int) -> dict[str, np.ndarray]:
    """Count the rows of each class (class,) in each split."""
    return {
        name: np.bincount(getattr(dataset, name)["label"], minlength=classes) for name in SHADES
    }


def class_table(counts: dict[str, np.ndarray], labels: list[str]) -> list[list[str]]:
    """Tabulate the rows of each class, the most frequent first."""
    table = [["Class", *counts]]
    for label in _listed(counts):
        if label is None:
            table.append([f"… {len(labels) - LISTED} more", "", "", ""])
        else:
            table.append([labels[label], *(f"{count[label]:,}" for count in counts.values())])
    return table


def class_findings(counts: dict[str, np.ndarray], labels: list[str]) -> Iterator[Finding]:
    """Warn of classes with few rows, and of one that outnumbers all others by far."""
    train = counts["train"]
    if rare := [labels[label] for label in np.flatnonzero(train < FEWEST)]:
        text = f"{len(rare)} of {len(labels)} classes have fewer than {FEWEST} training rows"
        yield Finding("warning", f"{text}: {short_list(rare)}")
    if (share := train.max() / max(train.sum(), 1)) > 0.95:
        most = labels[train.argmax()]
        yield Finding("warning", f"{share:.1%} of the training rows are of class {most!r}")


def plot_classes(axis: "Axes", counts: dict[str, np.ndarray], labels: list[str]) -> None:
    """Draw a bar for each class, with a part for each split."""
    listed = [label for label in _listed(counts) if label is not None]
    left = np.zeros(len(listed))
    for name, color in SHADES.items():
        axis.barh(range(len(listed)), counts[name][listed], left=left, color=color, label=name)
        left = left + counts[name][listed]
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in labels]
    axis.set_yticks(range(len(listed)), [names[label].replace("$", r"\$") for label in listed])
    axis.invert_yaxis()
    axis.set_xlabel("rows")
    axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    axis.spines[["top", "right"]].set_visible(False)


def _listed(counts: dict[str, np.ndarray]) -> list[int | None]:
    """Order classes by size; None stands for those in the middle that are left out."""
    order = np.argsort(-sum(counts.values()), kind="stable").tolist()
    half = LISTED // 2
    return order if len(order) <= LISTED else [*order[:half], None, *order[-half:]]
