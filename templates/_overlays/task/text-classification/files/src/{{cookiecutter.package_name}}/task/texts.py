"""Labelled texts by split, as `docstrings` and `tables` return them."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from .settings import DataSettings

SPLIT_NAMES = ("train", "validation", "test")


@dataclass
class LabelledTexts:
    """Texts and the name of each one's class."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, text: str, label: str) -> None:
        self.texts.append(text)
        self.labels.append(label)

    def limit(self, most: int) -> None:
        """Keep `most` texts in their order, of each class its first ones: its share of them, and at
        least one if there are as many as classes."""
        sizes, seen, order = Counter(self.labels), Counter[str](), list[float]()
        for label in self.labels:
            order.append(seen[label] / sizes[label])
            seen[label] += 1
        kept = sorted(sorted(range(len(order)), key=order.__getitem__)[:most])
        self.texts = [self.texts[row] for row in kept]
        self.labels = [self.labels[row] for row in kept]


@dataclass
class Corpus:
    """Texts of one source."""

    by_split: dict[str, LabelledTexts]  # SPLIT_NAMES, and one more that is evaluated separately
    unlabelled: list[str]  # texts for pre-training, none of them held out
    source: str  # for messages
    about: str  # a sentence for the report
    notes: list[str] = field(default_factory=list)  # what was guessed or left out


def split_by_hash(key: str, settings: DataSettings) -> str:
    """Choose a text's or file's split by its key alone, so that adding others does not move it.

    With `data.test_fold` the fold tests, and what comes before it in the order of hashes validates.
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48
    test_share = 0 if settings.test_path else settings.test_share
    if settings.test_fold is not None and not settings.test_path:
        test_share = 1 / settings.folds
        place = (place - settings.test_fold * test_share + settings.validation_share) % 1
    if place < settings.validation_share:
        return "validation"
    return "test" if place < settings.validation_share + test_share else "train"
