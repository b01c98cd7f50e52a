"""Texts with their classes, and how it is decided which split each belongs to."""

import hashlib
from dataclasses import dataclass, field

from .settings import DataSettings

PARTS = ("train", "validation", "test")


@dataclass
class Part:
    """Texts and the name of each one's class."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, text: str, label: str) -> None:
        """One more."""
        self.texts.append(text)
        self.labels.append(label)


@dataclass
class Texts:
    """The parts by name, and texts to learn the language from, none of them held out."""

    parts: dict[str, Part]  # those of PARTS, and one more that is measured apart
    unlabelled: list[str]
    where: str  # for messages
    about: str  # a sentence for the report


def part_by_hash(key: str, settings: DataSettings) -> str:
    """The split of a text or file: it depends on nothing but the key itself."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48
    test_share = 0 if settings.test_path else settings.test_share
    if place < settings.validation_share:
        return "validation"
    return "test" if place < settings.validation_share + test_share else "train"
