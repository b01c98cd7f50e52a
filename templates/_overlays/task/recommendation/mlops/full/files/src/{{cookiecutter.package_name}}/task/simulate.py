"""Users with the items they chose next for `make loop`, before and after a simulated shift."""

import numpy as np

from ..arrays import Arrays
from ..interfaces import LabelledItem
from .contract import GroundTruth, Item
from .data import Dataset
from .settings import Settings

SHIFT_DESCRIPTION = (
    "Fashions change: the hundred most popular items go out of use, and each is replaced by an "
    "item that hardly anybody had."
)

MORE_TRAFFIC = "lower data.folds, raise data.warm, or add users"

MAX_SWAPPED = 100  # popular items
NORMAL_SHARE = 0.25  # of the held-out rows
SHIFTED_COUNT = 450  # at least about so many requests
KNOWN_SHARE = (0.6, 1.0)  # of a user's items that a request names


def normal_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return the first held-out users as they are, in their order."""
    unchanged = np.arange(len(dataset.contract.items) + 1)
    count = round(NORMAL_SHARE * len(held_out["seen"]))
    return _labelled_items(dataset, held_out, unchanged)[:count]


def shifted_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return the other users with popular and rare items swapped, in requests and choices.

    Of few users, each comes several times in a row, with a random part of the known items, so
    early and late requests share no user.
    """
    count = round(NORMAL_SHARE * len(held_out["seen"]))
    users = _labelled_items(dataset, held_out, swapped(dataset.contract.counts))[count:]
    visits, rng = round(SHIFTED_COUNT / max(1, len(users))), np.random.default_rng(0)
    return [
        (_forgetful(item, rng) if visits > 1 else item, truth)
        for item, truth in users
        for _ in range(max(1, visits))
    ]


def _forgetful(item: Item, rng: np.random.Generator) -> Item:
    """Leave some of the items out, in their order."""
    count = max(1, round(rng.uniform(*KNOWN_SHARE) * len(item.items)))
    kept = np.sort(rng.permutation(len(item.items))[:count])
    return Item(items=[item.items[place] for place in kept])


def swapped(counts: list[int]) -> np.ndarray:
    """Return the new item number (count + 1,) for each old one, from 1; 0 stays."""
    order = np.argsort(-np.array(counts), kind="stable") + 1
    size = min(MAX_SWAPPED, len(order) // 2)
    numbers = np.arange(len(counts) + 1)
    popular, rare = order[:size], order[::-1][:size]
    numbers[popular], numbers[rare] = rare, popular
    return numbers


def _labelled_items(dataset: Dataset, held_out: Arrays, numbers: np.ndarray) -> list[LabelledItem]:
    names = dataset.contract.items
    histories, targets = (numbers[held_out[key]].tolist() for key in ("history", "target"))
    return [
        (
            Item(items=[names[number - 1] for number in history if number]),
            GroundTruth(items=[names[number - 1] for number in target if number]),
        )
        for history, target in zip(histories, targets, strict=True)
    ]
