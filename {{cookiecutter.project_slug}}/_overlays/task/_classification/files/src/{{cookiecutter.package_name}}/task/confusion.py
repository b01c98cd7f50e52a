"""The picture that every classifier has."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

NAMED_CELLS = 20  # with more classes the matrix shows no numbers


def draw(table: Any, labels: list[str]) -> tuple[str, str, Figure]:
    """(file name, caption, figure): counts (true, chosen), coloured by each true class's shares."""
    counts, side = np.asarray(table), min(2 + 0.3 * len(labels), 12)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= NAMED_CELLS:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=color)
        axis.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        axis.set_yticks(range(len(labels)), labels)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    caption = "Confusion matrix on the test split: rows are true classes, columns predicted ones."
    return "confusion.png", caption, figure
