"""Plots for the report: recall by length, the long tail, examples."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..arrays import Arrays
from ..palette import BLUE, GREY, ORANGE, PALE
from . import baseline, objective, ranking
from .data import Dataset

GREYS = (PALE, "#b9bdc5", "#979ca6", "#737983", "#4f555e")  # of baselines
EXAMPLE_USERS = 5
EXAMPLE_ITEMS = 6


def plot_results(
    dataset: Dataset, outputs: Arrays, details: dict[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """Yield (file name, caption, figure) for the chosen network on the test split."""
    test, longest = dataset.test, max(objective.TABLE_K)
    lists = {"Network": ranking.recommend(outputs, test, longest)}
    for name, baseline_outputs in baseline.fit_and_predict(dataset):
        lists[name] = ranking.recommend(baseline_outputs, test, longest)
    caption = "Recall by length of the list, over all items that a test user does not have."
    yield "recall_by_k.png", caption, plot_recall(lists, test)
    caption = (
        "Recall@10 by popularity of the held-out items (fifths of all interactions, from the most "
        "to the least popular items), and the share of each fifth's items that is recommended to "
        "anybody among the first 10: the long tail."
    )
    yield "long_tail.png", caption, plot_long_tail(lists, dataset)
    caption = (
        "Random test users: some of their items, the held-out items, and the first "
        f"{EXAMPLE_ITEMS} recommendations; orange: held out and among the first {objective.K}."
    )
    yield "examples.png", caption, plot_examples(dataset, lists["Network"])


def plot_recall(lists: dict[str, np.ndarray], split: Arrays) -> Figure:
    """Plot recall by length of the list, a line per model."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    relevant = ranking.lengths(split["target"])
    for name, color in _colors(lists):
        is_hit = ranking.hits(lists[name], split)
        places = range(1, is_hit.shape[1] + 1)
        values = [100 * ranking.recall(is_hit, relevant, k).mean() for k in places]
        width = 2.5 if name == "Network" else 1.5
        axis.plot(places, values, label=name, color=color, linewidth=width)
    axis.set(xlabel="length of the list", ylabel="recall, %", xscale="log", ylim=(0, None))
    axis.set_xticks(objective.TABLE_K, [str(k) for k in objective.TABLE_K])
    axis.minorticks_off()
    axis.legend(frameon=False)
    _style_axis(axis)
    return figure


def plot_long_tail(lists: dict[str, np.ndarray], dataset: Dataset) -> Figure:
    """Plot recall and coverage by fifths of the interactions, a line per model."""
    counts, test = np.array(dataset.contract.counts), dataset.test
    fifth = np.empty(len(counts), int)
    order = np.argsort(-counts, kind="stable")
    fifth[order] = np.minimum(5 * (np.cumsum(counts[order]) - counts[order]) // counts.sum(), 4)
    sizes = np.bincount(fifth, minlength=5)
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    target_fifths = np.append(-1, fifth)[test["target"]]
    for name, color in _colors(lists):
        first = lists[name][:, : objective.K]
        is_hit = (test["target"][:, :, None] == first[:, None, :]).any(axis=2)
        values = [
            100 * is_hit[target_fifths == n].mean() if (target_fifths == n).any() else np.nan
            for n in range(5)
        ]
        recommended = np.zeros(len(counts) + 1, bool)
        recommended[first.ravel()] = True
        covered = 100 * np.bincount(fifth[recommended[1:]], minlength=5) / np.maximum(sizes, 1)
        width = 2.5 if name == "Network" else 1.5
        left.plot(range(5), values, "o-", color=color, label=name, linewidth=width, markersize=4)
        right.plot(range(5), covered, "o-", color=color, linewidth=width, markersize=4)
    left.set(ylabel="held-out items in the first 10, %", ylim=(0, None))
    right.set(ylabel="items recommended to anybody, %", ylim=(0, 102))
    for axis in (left, right):
        axis.set_xticks(range(5), [f"{size:,}" for size in sizes])
        axis.set_xlabel("number of items per fifth, most popular first")
        _style_axis(axis)
    left.legend(frameon=False)
    return figure


def plot_examples(dataset: Dataset, lists: np.ndarray) -> Figure:
    """Plot a table of users: their items, the held-out ones, the recommendations (hits orange)."""
    contract, test = dataset.contract, dataset.test
    names = ["", *(contract.titles or contract.items)]
    rows = np.random.default_rng(0).permutation(len(lists))[:EXAMPLE_USERS]
    figure = Figure(figsize=(10, 0.5 + 1.45 * len(rows)), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(0, 1), ylim=(len(rows), -0.25))
    axis.axis("off")
    columns = {"has": 0.0, "held out": 0.36, "recommended": 0.68}
    for title, left in columns.items():
        axis.text(left, -0.12, title, weight="bold", fontsize=9)
    for place, row in enumerate(rows):
        axis.plot([0, 1], [place, place], color=PALE, linewidth=0.8)
        axis.text(0, place + 0.14, _short(dataset.test_users[row], 90), fontsize=8, color=GREY)
        history, target = (test[name][row][test[name][row] > 0] for name in ("history", "target"))
        cells = {"has": history, "held out": target, "recommended": lists[row]}
        for title, numbers in cells.items():
            for line, number in enumerate(numbers[:EXAMPLE_ITEMS]):
                text = _short(names[number], 38)
                is_last = line == EXAMPLE_ITEMS - 1 and len(numbers) > EXAMPLE_ITEMS
                if is_last and title != "recommended":
                    text = f"… and {len(numbers) - line} more"
                is_hit = number in target and number in lists[row, : objective.K]
                color = ORANGE if is_hit and title != "has" else "black"
                height = place + 0.28 + 0.125 * line
                axis.text(columns[title], height, text, fontsize=8, color=color)
    return figure


def _colors(lists: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Return (name, colour) of each model; the network last, so that its line is on top."""
    others = [name for name in lists if name != "Network"]
    return [*zip(others, GREYS, strict=False), ("Network", BLUE)]


def _style_axis(axis: Any) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
