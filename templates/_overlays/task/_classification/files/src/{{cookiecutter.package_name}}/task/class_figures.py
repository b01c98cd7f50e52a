"""Figures of every classifier: confusion matrix and reliability diagram."""

from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

from ..arrays import Arrays
from ..palette import BLUE, GREY
from .class_metrics import reliability

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


def plot_reliability(outputs: Arrays, split: Arrays) -> tuple[str, str, Figure]:
    """Return (file name, caption, figure): how often predictions of a probability are correct."""
    table, total = reliability(outputs, split), len(split["label"])
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    sizes = 20 + 400 * table["examples"] / total
    axis.scatter(table["probability"], table["correct"], s=sizes, color=BLUE, alpha=0.7)
    axis.plot(table["probability"], table["correct"], color=BLUE, linewidth=1)
    axis.set(xlabel="probability of the predicted class", ylabel="share of correct predictions")
    axis.set(xlim=(0, 1.03), ylim=(0, 1.03))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    caption = (
        "Calibration on the test split: predictions grouped by their probability; on the dashed "
        "line, probabilities are right. Larger dots stand for more examples."
    )
    return "reliability.png", caption, figure


def printable(text: str, longest: int | None = None, font: str = "DejaVu Sans") -> str:
    """Write a text in one line, with a box for what the font lacks: matplotlib would warn of it."""
    line = " ".join(text.split())
    if longest is not None and len(line) > longest:
        line = f"{line[: longest - 1]}…"
    known = font_manager.get_font(font_manager.findfont(font)).get_char_index
    return "".join(char if known(ord(char)) else "□" for char in line)
