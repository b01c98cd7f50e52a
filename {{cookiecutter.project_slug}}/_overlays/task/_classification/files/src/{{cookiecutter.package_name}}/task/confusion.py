"""Plot the confusion matrix."""

from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

MAX_LABELLED = 20  # with more classes the cells and axes carry no text
LONGEST_NAME = 30  # characters of a class


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
        names = [printable(label, LONGEST_NAME) for label in labels]
        rotation = 90 if max(map(len, names)) > 3 else 0
        axis.set_xticks(range(len(names)), names, rotation=rotation, parse_math=False)
        axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    caption = "Confusion matrix of the test split: rows are true classes, columns predictions."
    return "confusion.png", caption, figure


def printable(text: str, longest: int | None = None, font: str = "DejaVu Sans") -> str:
    """Write a text in one line, with a box for what the font lacks: matplotlib would warn of it."""
    line = " ".join(text.split())
    if longest is not None and len(line) > longest:
        line = f"{line[: longest - 1]}…"
    known = font_manager.get_font(font_manager.findfont(font)).get_char_index
    return "".join(char if known(ord(char)) else "□" for char in line)
