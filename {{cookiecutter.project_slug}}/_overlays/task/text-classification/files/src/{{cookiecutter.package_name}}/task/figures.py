"""What a person would look at for this problem."""

import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.figure import Figure

from ..interfaces import Arrays
from . import classes, confusion
from .data import Dataset

MANY = 12  # mistakes on one sheet
WIDTH = 108  # letters in a line
LINES = 3  # of a text
LINE = 0.19  # inches


def draw(
    dataset: Dataset, outputs: Arrays, details: dict[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """(file name, caption, figure) of each picture, for the chosen network on the test split."""
    names, truth = dataset.contract.labels, dataset.test["label"]
    chances, chosen = classes.probabilities(outputs).max(axis=1), classes.predicted_classes(outputs)
    order = np.argsort(-chances, kind="stable")
    wrong = order[chosen[order] != truth[order]]
    shown = wrong[:MANY] if len(wrong) else order[::-1][:MANY]
    caption = (
        f"What the network gets wrong: {len(wrong):,} of {len(chosen):,} test texts, the most "
        "confident first (true → predicted, probability)."
        if len(wrong)
        else "The network gets every test text right; these it was least sure of."
    )
    titles = [f"{names[truth[row]]} → {names[chosen[row]]}, {chances[row]:.0%}" for row in shown]
    yield "mistakes.png", caption, sheet(titles, [dataset.texts["test"][row] for row in shown])
    yield confusion.draw(details["confusion"], names)
    if details["words"]:
        caption = (
            "Which words the answer rests on: the probability falls (blue) or rises (red) when "
            "the word is left out. Of each class the first suitable test text with a right answer."
        )
        yield "words.png", caption, weighed(details["words"])


def sheet(titles: list[str], texts: list[str]) -> Figure:
    """Texts below each other, each under its title."""
    blocks = [
        textwrap.wrap(drawable(text), WIDTH, max_lines=LINES, placeholder=" …") for text in texts
    ]
    figure, axis = _page(sum(len(lines) + 2 for lines in blocks))
    height = 0.0
    for title, lines in zip(titles, blocks, strict=True):
        _write(axis, 0, height, drawable(title), weight="bold")
        for number, line in enumerate(lines, start=1):
            _write(axis, 0, height + number, line)
        height += len(lines) + 2
    return figure


def weighed(examples: list[dict[str, Any]]) -> Figure:
    """Texts below each other, each word coloured by its weight."""
    placed = [_placed(example["words"]) for example in examples]
    figure, axis = _page(sum(places[-1][0] + 3 for places in placed))
    height, colors = 0.0, colormaps["RdBu"]
    for example, places in zip(examples, placed, strict=True):
        _write(
            axis,
            0,
            height,
            f"{drawable(example['label'])}, {example['probability']:.0%}",
            weight="bold",
        )
        largest = max(0.05, *map(abs, example["weights"]))
        for (line, column, word), weight in zip(places, example["weights"], strict=True):
            color = colors(0.5 + 0.5 * weight / largest)
            box = {"facecolor": color, "edgecolor": "none", "pad": 1.0}
            dark = abs(weight) > 0.7 * largest
            _write(
                axis, column, height + 1 + line, word, color="white" if dark else "black", bbox=box
            )
        height += places[-1][0] + 3
    return figure


def drawable(text: str) -> str:
    """A text with a box for every sign that the font lacks (matplotlib would warn of each)."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans Mono"))
    return "".join(sign if font.get_char_index(ord(sign)) else "□" for sign in text)


def _placed(words: list[str]) -> list[tuple[int, int, str]]:
    """(line, column, word) of words that follow each other in lines of WIDTH letters."""
    line, column, places = 0, 0, []
    for word in (drawable(word)[:WIDTH] for word in words):
        if column and column + len(word) > WIDTH:
            line, column = line + 1, 0
        places.append((line, column, word))
        column += len(word) + 1
    return places


def _page(lines: int) -> tuple[Figure, Any]:
    """A figure whose axes count letters to the right and lines downwards."""
    figure = Figure(figsize=(8.4, LINE * lines + 0.1))
    axis = figure.add_axes((0.01, 0.0, 0.98, 1.0))
    axis.set(xlim=(0, WIDTH), ylim=(lines, -0.5))
    axis.axis("off")
    return figure, axis


def _write(axis: Any, column: float, line: float, text: str, **style: Any) -> None:
    axis.text(
        column,
        line,
        text,
        family="DejaVu Sans Mono",
        fontsize=9,
        va="center",
        parse_math=False,
        **style,
    )
