"""Labelled texts for `make loop`, before and after a simulated shift."""

import numpy as np

from ..arrays import Arrays
from ..interfaces import LabelledItem
from .contract import GroundTruth, Item
from .data import Dataset
from .settings import Settings

SHIFT_DESCRIPTION = (
    "A new client documents the library that training has never seen, and its generator puts the "
    "same sentence before every description."
)

BOILERPLATE = "Input data of the function, any array or sequence that can be converted to one."
MAX_SHIFTED = 800  # requests
NORMAL_SHARE = 0.4  # of the held-out rows, if there is no unseen library for the shifted ones


def normal_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return the held-out texts as they are, in their order."""
    end = None if dataset.unseen else round(NORMAL_SHARE * len(held_out["label"]))
    return _labelled_items(dataset, held_out["text"].tolist()[:end], held_out["label"][:end])


def shifted_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return the unseen library's texts in random order, each after the boilerplate.

    Without an unseen library, the later held-out texts take their place.
    """
    start = round(NORMAL_SHARE * len(held_out["label"]))
    texts, labels = held_out["text"].tolist()[start:], held_out["label"][start:]
    for name, split in dataset.unseen.items():
        texts, labels = dataset.texts[name], split["label"]
    order = np.random.default_rng(0).permutation(len(texts))[:MAX_SHIFTED]
    return _labelled_items(dataset, [generated(texts[row]) for row in order], labels[order])


def generated(text: str) -> str:
    """Write a description as the new client's generator does."""
    return f"{BOILERPLATE} {text}"


def _labelled_items(dataset: Dataset, texts: list[str], labels: np.ndarray) -> list[LabelledItem]:
    names = dataset.contract.labels
    return [
        (Item(text=text), GroundTruth(label=names[label]))
        for text, label in zip(texts, labels.tolist(), strict=True)
    ]
