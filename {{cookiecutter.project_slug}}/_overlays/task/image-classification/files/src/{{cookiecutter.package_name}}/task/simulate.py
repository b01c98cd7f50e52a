"""Pictures with their classes for `make loop`: some as ever, some after the world has changed."""

import numpy as np
from PIL import Image

from ..interfaces import Arrays, LabelledItem
from .contract import GroundTruth, Item
from .data import Dataset
from .settings import Settings

SHIFT = (
    "A new scanner: every picture arrives turned counter-clockwise by 35 to 50 degrees and with "
    "half the contrast."
)

TURN = (35.0, 50.0)  # degrees
CONTRAST = 0.5
PAIRS = 700  # about so many shifted ones
BEFORE = 0.4  # share of what was set aside that comes before the change


def usual(dataset: Dataset, rest: Arrays, settings: Settings) -> list[LabelledItem]:
    """The first of the pictures that were set aside, as they are and in their order."""
    return [_pair(dataset, image, label) for image, label in _rows(rest)[: _change(rest)]]


def shifted(dataset: Dataset, rest: Arrays, settings: Settings) -> list[LabelledItem]:
    """The others, from the new scanner.

    Each is scanned several times, at a new angle each time, so that there are enough. All scans of
    a picture follow each other: what comes early shares none with what comes late.
    """
    draw, rows = np.random.default_rng(0), _rows(rest)[_change(rest) :]
    scans = max(1, round(PAIRS / max(1, len(rows))))
    return [
        _pair(dataset, scanned(image, draw.uniform(*TURN)), label)
        for image, label in rows
        for _ in range(scans)
    ]


def scanned(image: np.ndarray, angle: float) -> np.ndarray:
    """A picture (channel, row, column) in 0..1 turned by degrees, with the lower contrast."""
    turned = [
        np.asarray(Image.fromarray(channel).rotate(angle, Image.Resampling.BICUBIC))
        for channel in image.astype(np.float32)
    ]
    return CONTRAST * np.stack(turned).clip(0, 1)


def _change(rest: Arrays) -> int:
    """How many pictures come before the change."""
    return round(BEFORE * len(rest["label"]))


def _rows(rest: Arrays) -> list[tuple[np.ndarray, int]]:
    return list(zip(rest["image"], rest["label"].tolist(), strict=True))


def _pair(dataset: Dataset, image: np.ndarray, label: int) -> LabelledItem:
    contract = dataset.contract
    return Item.model_validate(contract.item(image)), GroundTruth(label=contract.labels[label])
