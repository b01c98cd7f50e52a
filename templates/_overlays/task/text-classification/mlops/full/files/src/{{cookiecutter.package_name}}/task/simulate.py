"""Labelled texts for `make loop`, before and after a simulated shift."""

from collections import Counter

import numpy as np

from ..arrays import Arrays
from ..interfaces import LabelledItem
from .contract import GroundTruth, Item
from .data import Dataset
from .settings import Settings

SHIFT_DESCRIPTION = (
    "A new client, whose program puts the same opening before every text, in words that are "
    "typical of one class. If the data has an unseen library, the texts are that library's."
)
MORE_TRAFFIC = "raise data.test_share, or add texts"

BOILERPLATE = "Input data of the function, any array or sequence that can be converted to one."
OPENING_WORDS = 12
# Requests. Retraining learns from the earlier labels alone, so normal ones must not be many more
# than the shifted ones before it, or it sees nothing of the shift.
MAX_NORMAL, MAX_SHIFTED = 250, 1100
NORMAL_SHARE = 0.4  # of the held-out rows, if there is no unseen library for the shifted ones


def normal_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return held-out texts as they are, in their order."""
    end = MAX_NORMAL if dataset.unseen else round(NORMAL_SHARE * len(held_out["label"]))
    return _labelled_items(dataset, held_out["text"].tolist()[:end], held_out["label"][:end])


def shifted_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return the unseen library's texts in random order, each after the boilerplate.

    Without an unseen library, the later held-out texts take their place, after the words that are
    most typical of the largest class; of few texts, each is sent several times in a row, with the
    words in another order.
    """
    rng = np.random.default_rng(0)
    for name, split in dataset.unseen.items():
        texts, labels = dataset.texts[name], split["label"]
        order = rng.permutation(len(texts))[:MAX_SHIFTED]
        return _labelled_items(dataset, [generated(texts[row]) for row in order], labels[order])
    start = round(NORMAL_SHARE * len(held_out["label"]))
    texts, labels = held_out["text"].tolist()[start:], held_out["label"][start:]
    words = typical_words(dataset)
    rows = np.repeat(np.arange(len(texts)), max(1, round(MAX_SHIFTED / max(1, len(texts)))))
    sent = [generated(texts[row], " ".join(rng.permutation(words)) + ".") for row in rows]
    return _labelled_items(dataset, sent, labels[rows])


def generated(text: str, opening: str = BOILERPLATE) -> str:
    """Write a text as the new client's program does."""
    return f"{opening} {text}"


def typical_words(dataset: Dataset) -> list[str]:
    """Return the words of the largest class's training texts that others have least."""
    texts, labels = dataset.texts["train"], dataset.train["label"]
    largest = np.bincount(labels).argmax()
    inside, outside = Counter[str](), Counter[str]()
    for text, label in zip(texts, labels.tolist(), strict=True):
        (inside if label == largest else outside).update(set(text.split()))
    return sorted(inside, key=lambda word: outside[word] - inside[word])[:OPENING_WORDS]


def _labelled_items(dataset: Dataset, texts: list[str], labels: np.ndarray) -> list[LabelledItem]:
    names = dataset.contract.labels
    return [
        (Item(text=text), GroundTruth(label=names[label]))
        for text, label in zip(texts, labels.tolist(), strict=True)
    ]
