"""Plot the confusion matrix."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

MAX_LABELLED = 20  # with more classes the cells and axes carry no text


def plot_confusion_matrix(counts: Any, labels: list[str]) -> tuple[str, str, Figure]:
    """Return (file name, caption, figure) of counts (true class, predicted class).

    Colours show each row's shares, so that rare classes can be read too.
    """
    counts, side = np.asarray(counts), min(2 + 0.3 * len(labels), 12)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= MAX_LABELLED:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=color)
        axis.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        axis.set_yticks(range(len(labels)), labels)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    caption = "Confusion matrix of the test split: rows are true classes, columns predictions."
    return "confusion.png", caption, figure
