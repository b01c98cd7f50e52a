"""What a person would look at for this problem."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .contract import Arrays, Contract
from .data import Dataset

MANY = 24  # pictures on one sheet
NAMED_CELLS = 20  # with more classes the confusion matrix shows no numbers


def draw(
    dataset: Dataset, outputs: Arrays, details: dict[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """(file name, caption, figure) of each picture, for the chosen network on the test split."""
    answers = dataset.contract.decode(outputs)
    labels = [dataset.contract.labels[label] for label in dataset.test["label"]]
    wrong = [row for row, answer in enumerate(answers) if answer.label != labels[row]]
    wrong.sort(key=lambda row: -answers[row].probability)
    shown = wrong[:MANY] or np.argsort([answer.probability for answer in answers])[:MANY].tolist()
    titles = [
        f"{labels[row]} → {answers[row].label}\n{answers[row].probability:.0%}" for row in shown
    ]
    caption = (
        f"What the network gets wrong: {len(wrong)} of {len(answers)} test images, the most "
        "confident first (true → predicted, probability)."
        if wrong
        else "The network gets every test image right; these it was least sure of."
    )
    yield "mistakes.png", caption, sheet(dataset.test["image"][shown], titles)
    yield (
        "confusion.png",
        "Confusion matrix on the test split: rows are true classes, columns predicted ones.",
        confusion(np.array(details["confusion"]), dataset.contract),
    )


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


def confusion(table: np.ndarray, contract: Contract) -> Figure:
    """Counts (true, predicted) as a heat map of each true class's shares."""
    labels, count = contract.labels, len(contract.labels)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = min(2 + 0.3 * count, 12)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= NAMED_CELLS:
        for row, column in np.argwhere(table):
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(table[row, column]), ha="center", va="center", color=color)
        axis.set_xticks(range(count), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        axis.set_yticks(range(count), labels)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    return figure
