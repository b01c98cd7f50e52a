"""Texts with their classes for `make loop`: some as ever, some after the world has changed."""

import numpy as np

from ..interfaces import Arrays, LabelledItem
from .contract import GroundTruth, Item
from .data import Dataset
from .settings import Settings

SHIFT = (
    "A new client documents the library that training never read, and its generator puts the same "
    "sentence before every description."
)

BOILERPLATE = "Input data of the function, any array or sequence that can be converted to one."
PAIRS = 800  # shifted ones, at most
BEFORE = 0.4  # share of what was set aside that comes before the change, if both come from it


def usual(dataset: Dataset, rest: Arrays, settings: Settings) -> list[LabelledItem]:
    """The texts that were set aside, as they are and in their order."""
    end = None if dataset.unseen else _change(rest)
    return _pairs(dataset, rest["text"].tolist()[:end], rest["label"][:end])


def shifted(dataset: Dataset, rest: Arrays, settings: Settings) -> list[LabelledItem]:
    """The texts of the library that is kept apart, after the sentence, in a random order.

    Data without such a library gives the later of the texts that were set aside, after it as well.
    """
    start = _change(rest)
    texts, labels = rest["text"].tolist()[start:], rest["label"][start:]
    for name, split in dataset.unseen.items():
        texts, labels = dataset.texts[name], split["label"]
    order = np.random.default_rng(0).permutation(len(texts))[:PAIRS]
    return _pairs(dataset, [generated(texts[row]) for row in order], labels[order])


def generated(text: str) -> str:
    """A description as the new client's generator writes it."""
    return f"{BOILERPLATE} {text}"


def _change(rest: Arrays) -> int:
    """How many texts come before the change."""
    return round(BEFORE * len(rest["label"]))


def _pairs(dataset: Dataset, texts: list[str], labels: np.ndarray) -> list[LabelledItem]:
    names = dataset.contract.labels
    return [
        (Item(text=text), GroundTruth(label=names[label]))
        for text, label in zip(texts, labels.tolist(), strict=True)
    ]
