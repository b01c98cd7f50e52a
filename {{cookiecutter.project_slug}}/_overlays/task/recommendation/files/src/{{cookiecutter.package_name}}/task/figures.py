"""What a person would look at for this problem."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..interfaces import Arrays
from . import baseline, objective, ranking
from .data import Dataset

BLUE, GREEN, GREY = "#1f5fa8", "#2e8b57", "#8a8f98"
GREYS = ("#c8ccd2", "#a5aab3", "#7d838d", "#4f555e")
EXAMPLES = 5
SHOWN_ITEMS = 6


def draw(
    dataset: Dataset, outputs: Arrays, details: dict[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """(file name, caption, figure) of each picture, for the chosen network on the test split."""
    test, most = dataset.test, max(objective.TABLE_K)
    lists = {"Network": ranking.ranked(outputs, test, most)}
    for name, found in baseline.predictions(dataset):
        lists[name] = ranking.ranked(found, test, most)
    caption = "Recall by length of the list, over all items that a test user does not have."
    yield "recall_by_k.png", caption, recall_by_k(lists, test)
    caption = (
        "Recall@10 by how popular the held-back items are (fifths of all interactions, from the "
        "most to the least popular items), and the share of each fifth's items that anybody is "
        "shown among the first 10: the long tail."
    )
    yield "long_tail.png", caption, long_tail(lists, dataset)
    caption = (
        "Test users drawn at random: some of what they have, what was held back, and the first "
        f"{SHOWN_ITEMS} recommendations; green: held back and among the first {objective.K}."
    )
    yield "examples.png", caption, examples(dataset, lists["Network"])


def recall_by_k(lists: dict[str, np.ndarray], split: Arrays) -> Figure:
    """A line per model."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    wanted = ranking.lengths(split["target"])
    for name, color in _colors(lists):
        hit = ranking.hits(lists[name], split)
        places = range(1, hit.shape[1] + 1)
        values = [100 * ranking.recall(hit, wanted, k).mean() for k in places]
        width = 2.5 if name == "Network" else 1.5
        axis.plot(places, values, label=name, color=color, linewidth=width)
    axis.set(xlabel="length of the list", ylabel="recall, %", xscale="log", ylim=(0, None))
    axis.set_xticks(objective.TABLE_K, [str(k) for k in objective.TABLE_K])
    axis.minorticks_off()
    axis.legend(frameon=False)
    _plain(axis)
    return figure


def long_tail(lists: dict[str, np.ndarray], dataset: Dataset) -> Figure:
    """Recall and coverage in fifths of the interactions, a line per model."""
    counts, test = np.array(dataset.contract.counts), dataset.test
    fifth = np.empty(len(counts), int)
    order = np.argsort(-counts, kind="stable")
    fifth[order] = np.minimum(5 * (np.cumsum(counts[order]) - counts[order]) // counts.sum(), 4)
    sizes = np.bincount(fifth, minlength=5)
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    parts = np.append(-1, fifth)[test["target"]]
    for name, color in _colors(lists):
        first = lists[name][:, : objective.K]
        found = (test["target"][:, :, None] == first[:, None, :]).any(axis=2)
        values = [
            100 * found[parts == part].mean() if (parts == part).any() else np.nan
            for part in range(5)
        ]
        shown = np.zeros(len(counts) + 1, bool)
        shown[first.ravel()] = True
        covered = 100 * np.bincount(fifth[shown[1:]], minlength=5) / np.maximum(sizes, 1)
        width = 2.5 if name == "Network" else 1.5
        left.plot(range(5), values, "o-", color=color, label=name, linewidth=width, markersize=4)
        right.plot(range(5), covered, "o-", color=color, linewidth=width, markersize=4)
    left.set(ylabel="held-back items found in the first 10, %", ylim=(0, None))
    right.set(ylabel="items shown to anybody, %", ylim=(0, 102))
    for axis in (left, right):
        axis.set_xticks(range(5), [f"{size:,}" for size in sizes])
        axis.set_xlabel("number of items per fifth, most popular first")
        _plain(axis)
    left.legend(frameon=False)
    return figure


def examples(dataset: Dataset, lists: np.ndarray) -> Figure:
    """A table: what a user has, what was held back, what the network recommends (hits green)."""
    contract, test = dataset.contract, dataset.test
    names = ["", *(contract.titles or contract.items)]
    rows = np.random.default_rng(0).permutation(len(lists))[:EXAMPLES]
    figure = Figure(figsize=(10, 0.5 + 1.45 * len(rows)), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(0, 1), ylim=(len(rows), -0.25))
    axis.axis("off")
    columns = {"has": 0.0, "held back": 0.36, "is recommended": 0.68}
    for title, left in columns.items():
        axis.text(left, -0.12, title, weight="bold", fontsize=9)
    for place, row in enumerate(rows):
        axis.plot([0, 1], [place, place], color="#d0d4da", linewidth=0.8)
        axis.text(0, place + 0.14, _short(dataset.test_users[row], 90), fontsize=8, color=GREY)
        history, target = (test[name][row][test[name][row] > 0] for name in ("history", "target"))
        shown = {"has": history, "held back": target, "is recommended": lists[row]}
        for title, numbers in shown.items():
            for line, number in enumerate(numbers[:SHOWN_ITEMS]):
                text = _short(names[number], 38)
                if (
                    line == SHOWN_ITEMS - 1
                    and title != "is recommended"
                    and len(numbers) > SHOWN_ITEMS
                ):
                    text = f"… and {len(numbers) - line} more"
                right = title != "has" and number in target and number in lists[row, : objective.K]
                color = GREEN if right else "black"
                height = place + 0.28 + 0.125 * line
                axis.text(columns[title], height, text, fontsize=8, color=color)
    return figure


def _colors(lists: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """The network last, so that its line lies on top."""
    others = [name for name in lists if name != "Network"]
    return [*zip(others, GREYS, strict=False), ("Network", BLUE)]


def _plain(axis: Any) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
