"""Plots for the report: misclassified texts, the confusion matrix, which words matter."""

import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ..arrays import Arrays
from .class_figures import plot_confusion_matrix, plot_reliability, printable
from .class_metrics import predicted_classes
from .classes import probabilities
from .data import Dataset

FONT = "DejaVu Sans Mono"
MAX_TEXTS = 12  # in one plot
LINE_LENGTH = 108  # characters
MAX_LINES = 3  # per text
LINE_HEIGHT = 0.19  # inches


def plot_results(
    dataset: Dataset, outputs: Arrays, details: dict[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """Yield (file name, caption, figure) for the chosen network on the test split."""
    names, actual = dataset.contract.labels, dataset.test["label"]
    confidence, predicted = probabilities(outputs).max(axis=1), predicted_classes(outputs)
    order = np.argsort(-confidence, kind="stable")
    wrong = order[predicted[order] != actual[order]]
    rows = wrong[:MAX_TEXTS] if len(wrong) else order[::-1][:MAX_TEXTS]
    caption = (
        f"Misclassified: {len(wrong):,} of {len(predicted):,} test texts, the most confident "
        "mistakes first (true → predicted, probability)."
        if len(wrong)
        else "All test texts are classified correctly; these are the least confident predictions."
    )
    titles = [
        f"{_short(names[actual[row]])} → {_short(names[predicted[row]])}, {confidence[row]:.0%}"
        for row in rows
    ]
    yield "mistakes.png", caption, plot_texts(titles, [dataset.texts["test"][row] for row in rows])
    yield plot_confusion_matrix(details["confusion"], names)
    yield plot_reliability(outputs, dataset.test)
    if details["words"]:
        caption = (
            "Which words matter: without the word, the predicted class's probability falls (blue) "
            "or rises (red). Of each class the first suitable test text that is classified "
            "correctly."
        )
        yield "words.png", caption, plot_word_weights(details["words"])


def plot_texts(titles: list[str], texts: list[str]) -> Figure:
    """Plot texts below each other, each under its title."""
    blocks = [
        textwrap.wrap(
            printable(text, font=FONT), LINE_LENGTH, max_lines=MAX_LINES, placeholder=" …"
        )
        for text in texts
    ]
    figure, axis = _page(sum(len(lines) + 2 for lines in blocks))
    height = 0.0
    for title, lines in zip(titles, blocks, strict=True):
        _print_line(axis, 0, height, printable(title, font=FONT), weight="bold")
        for number, line in enumerate(lines, start=1):
            _print_line(axis, 0, height + number, line)
        height += len(lines) + 2
    return figure


def plot_word_weights(examples: list[dict[str, Any]]) -> Figure:
    """Plot texts below each other, each word coloured by its weight."""
    layouts = [_layout(example["words"]) for example in examples]
    figure, axis = _page(sum(places[-1][0] + 3 for places in layouts))
    height, colors = 0.0, colormaps["RdBu"]
    for example, places in zip(examples, layouts, strict=True):
        title = (
            f"{printable(example['label'], LINE_LENGTH - 9, FONT)}, {example['probability']:.0%}"
        )
        _print_line(axis, 0, height, title, weight="bold")
        largest = max(0.05, *map(abs, example["weights"]))
        for (line, column, word), weight in zip(places, example["weights"], strict=True):
            color = colors(0.5 + 0.5 * weight / largest)
            box = {"facecolor": color, "edgecolor": "none", "pad": 1.0}
            text_color = "white" if abs(weight) > 0.7 * largest else "black"
            _print_line(axis, column, height + 1 + line, word, color=text_color, bbox=box)
        height += places[-1][0] + 3
    return figure


def _short(name: str) -> str:
    return printable(name, LINE_LENGTH // 2 - 6, FONT)


def _layout(words: list[str]) -> list[tuple[int, int, str]]:
    """Break words into lines of LINE_LENGTH; return (line, column, word) of each."""
    line, column, places = 0, 0, []
    for word in (printable(word, LINE_LENGTH, FONT) for word in words):
        if column and column + len(word) > LINE_LENGTH:
            line, column = line + 1, 0
        places.append((line, column, word))
        column += len(word) + 1
    return places


def _page(lines: int) -> tuple[Figure, Any]:
    """Make a figure whose axes count characters to the right and lines downwards."""
    figure = Figure(figsize=(8.4, LINE_HEIGHT * (lines + 0.5) + 0.1))
    axis = figure.add_axes((0.01, 0.0, 0.98, 1.0))
    axis.set(xlim=(0, LINE_LENGTH), ylim=(lines, -1))
    axis.axis("off")
    return figure, axis


def _print_line(axis: Any, column: float, line: float, text: str, **style: Any) -> None:
    font: dict[str, Any] = {"family": FONT, "fontsize": 9}
    axis.text(column, line, text, va="center", parse_math=False, **font, **style)
