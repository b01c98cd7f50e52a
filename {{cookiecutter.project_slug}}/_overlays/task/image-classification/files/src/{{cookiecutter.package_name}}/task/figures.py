"""What a person would look at for this problem."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..interfaces import Arrays
from . import classes, confusion
from .data import Dataset

MANY = 24  # pictures on one sheet


def draw(
    dataset: Dataset, outputs: Arrays, details: dict[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """(file name, caption, figure) of each picture, for the chosen network on the test split."""
    names = dataset.contract.labels
    chances, chosen = classes.probabilities(outputs).max(axis=1), classes.predicted_classes(outputs)
    order = np.argsort(-chances, kind="stable")
    wrong = order[chosen[order] != dataset.test["label"][order]]
    shown = wrong[:MANY] if len(wrong) else order[::-1][:MANY]
    titles = [
        f"{names[dataset.test['label'][row]]} → {names[chosen[row]]}\n{chances[row]:.0%}"
        for row in shown
    ]
    caption = (
        f"What the network gets wrong: {len(wrong)} of {len(chosen)} test images, the most "
        "confident first (true → predicted, probability)."
        if len(wrong)
        else "The network gets every test image right; these it was least sure of."
    )
    yield "mistakes.png", caption, sheet(dataset.test["image"][shown], titles)
    yield confusion.draw(details["confusion"], names)


def sheet(images: np.ndarray, titles: list[str]) -> Figure:
    """Images (n, channel, row, column) side by side, each under its title."""
    columns = min(8, max(len(images), 1))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.15 * columns, 1.55 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for place, axis in enumerate(axes):
        axis.axis("off")
        if place < len(images):
            picture = images[place].transpose(1, 2, 0)
            axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
            axis.set_title(titles[place], fontsize=9)
    return figure
