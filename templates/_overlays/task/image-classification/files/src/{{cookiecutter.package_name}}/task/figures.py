"""Plots for the report: misclassified images and the confusion matrix."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..arrays import Arrays
from .class_figures import plot_confusion_matrix, plot_reliability
from .class_metrics import predicted_classes
from .classes import probabilities
from .data import Dataset

MAX_IMAGES = 24  # in one plot


def plot_results(
    dataset: Dataset, outputs: Arrays, details: dict[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """Yield (file name, caption, figure) for the chosen network on the test split."""
    names = dataset.contract.labels
    confidence, predicted = probabilities(outputs).max(axis=1), predicted_classes(outputs)
    order = np.argsort(-confidence, kind="stable")
    wrong = order[predicted[order] != dataset.test["label"][order]]
    rows = wrong[:MAX_IMAGES] if len(wrong) else order[::-1][:MAX_IMAGES]
    titles = [
        f"{names[dataset.test['label'][row]]} → {names[predicted[row]]}\n{confidence[row]:.0%}"
        for row in rows
    ]
    caption = (
        f"Misclassified: {len(wrong)} of {len(predicted)} test images, the most confident mistakes "
        "first (true → predicted, probability)."
        if len(wrong)
        else "All test images are classified correctly; these are the least confident predictions."
    )
    yield "mistakes.png", caption, image_grid(dataset.test["image"][rows], titles)
    yield plot_confusion_matrix(details["confusion"], names)
    yield plot_reliability(outputs, dataset.test)


def image_grid(images: np.ndarray, titles: list[str]) -> Figure:
    """Plot images (n, channel, row, column) side by side, each under its title."""
    columns = min(8, max(len(images), 1))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.15 * columns, 1.55 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for place, axis in enumerate(axes):
        axis.axis("off")
        if place < len(images):
            image = images[place].transpose(1, 2, 0)
            axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
            axis.set_title(titles[place], fontsize=9)
    return figure
