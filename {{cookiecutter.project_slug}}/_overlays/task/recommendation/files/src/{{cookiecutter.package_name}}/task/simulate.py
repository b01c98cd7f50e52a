"""Users with what they took next, for `make loop`: some as ever, some after a change."""

import numpy as np

from ..interfaces import Arrays, LabelledItem
from .contract import GroundTruth, Item
from .data import Dataset
from .settings import Settings

SHIFT = (
    "Fashions turn: the hundred most popular items fall out of use, and the place of each is taken "
    "by one that hardly anybody had."
)

FASHIONS = 100
BEFORE = 0.25  # share of what was set aside that comes before the change


def usual(dataset: Dataset, rest: Arrays, settings: Settings) -> list[LabelledItem]:
    """The first of the users that were set aside, as they are and in their order."""
    same = np.arange(len(dataset.contract.items) + 1)
    return _pairs(dataset, rest, same)[: _change(rest)]


def shifted(dataset: Dataset, rest: Arrays, settings: Settings) -> list[LabelledItem]:
    """The others after the fashions turned, both in what they have and in what they take."""
    return _pairs(dataset, rest, turned(dataset.contract.counts))[_change(rest) :]


def turned(counts: list[int]) -> np.ndarray:
    """For each item's number (from 1; 0 stays) the number of the item that is in its place now."""
    order = np.argsort(-np.array(counts), kind="stable") + 1
    many = min(FASHIONS, len(order) // 2)
    found = np.arange(len(counts) + 1)
    popular, rare = order[:many], order[::-1][:many]
    found[popular], found[rare] = rare, popular
    return found


def _change(rest: Arrays) -> int:
    """How many users come before the change."""
    return round(BEFORE * len(rest["seen"]))


def _pairs(dataset: Dataset, rest: Arrays, now: np.ndarray) -> list[LabelledItem]:
    names = dataset.contract.items
    rows = zip(now[rest["history"]].tolist(), now[rest["target"]].tolist(), strict=True)
    return [
        (
            Item(items=[names[number - 1] for number in history if number]),
            GroundTruth(items=[names[number - 1] for number in target if number]),
        )
        for history, target in rows
    ]
