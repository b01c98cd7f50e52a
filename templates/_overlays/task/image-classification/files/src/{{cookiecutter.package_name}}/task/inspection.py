"""What the command `data` says about images: classes, brightness, examples."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..interfaces import Finding, Inspection
from .class_inspection import class_findings, class_table, count_classes, plot_classes
from .data import Dataset
from .settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLE, ANSWER = ("image",), "label"
SAMPLE = 500  # training images whose contrast is looked at
SHOWN_CLASSES, SHOWN_IMAGES = 10, 10


def inspect(dataset: Dataset, settings: Settings) -> Inspection:
    """Count classes; look for images without content."""
    labels = dataset.contract.labels
    counts = count_classes(dataset, len(labels))
    rows = np.unique(np.linspace(0, len(dataset.train["label"]) - 1, SAMPLE).astype(int))
    spread = dataset.train["image"][rows].std(axis=(1, 2, 3))
    blank = int((spread < 1 / 255).sum())
    findings = list(class_findings(counts, labels))
    if blank:
        text = f"{blank} of {len(rows)} training images looked at are blank, of a single colour"
        findings.append(Finding("error" if blank == len(rows) else "warning", text))
    shape = " × ".join(map(str, dataset.contract.size))
    kind = "RGB" if dataset.contract.color else "grey"
    facts = [["Image", ""], ["size", f"{shape} pixels, {kind}"]]
    facts.append(["contrast (standard deviation)", f"{spread.mean():.3f} of 1"])
    tables = {"Images": facts, "Classes": class_table(counts, labels)}
    return Inspection(tables, findings, partial(plot_data, dataset, counts))


def plot_data(dataset: Dataset, counts: dict[str, np.ndarray]) -> "Figure":
    """Draw the sizes of the classes beside training images of the largest ones."""
    from matplotlib.figure import Figure

    labels, train = dataset.contract.labels, dataset.train
    shown = np.argsort(-counts["train"], kind="stable")[:SHOWN_CLASSES]
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = np.asarray(figure.subfigures(1, 2))
    plot_classes(left.subplots(), counts, labels)
    axes = right.subplots(len(shown), SHOWN_IMAGES, squeeze=False)
    right.suptitle("training images by class", fontsize=9)
    for line, label in zip(axes, shown, strict=True):
        rows = np.flatnonzero(train["label"] == label)
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, SHOWN_IMAGES).astype(int))]
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, image in zip(line, train["image"][chosen], strict=False):
            axis.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1)
        name = labels[label] if len(labels[label]) <= 14 else f"{labels[label][:13]}…"
        name = name.replace("$", r"\$")
        line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    return figure
