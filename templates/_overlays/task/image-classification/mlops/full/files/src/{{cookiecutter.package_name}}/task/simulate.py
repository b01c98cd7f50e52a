"""Labelled images for `make loop`, before and after a simulated shift."""

import numpy as np
from PIL import Image

from ..arrays import Arrays
from ..interfaces import LabelledItem
from .contract import GroundTruth, Item
from .data import Dataset
from .settings import Settings

SHIFT_DESCRIPTION = (
    "A new scanner: every image arrives rotated counter-clockwise by 35 to 50 degrees and with "
    "half the contrast."
)
MORE_TRAFFIC = "lower data.folds, or add images"

ROTATION = (35.0, 50.0)  # degrees
CONTRAST = 0.5
SHIFTED_COUNT = 700  # approximately
NORMAL_SHARE = 0.4  # of the held-out rows


def normal_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return the first held-out images as they are, in their order."""
    count = round(NORMAL_SHARE * len(held_out["label"]))
    labels = held_out["label"][:count].tolist()
    return [
        _labelled_item(dataset, held_out["image"][row], label) for row, label in enumerate(labels)
    ]


def shifted_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return the other held-out images, as the new scanner delivers them.

    Each is scanned several times, at a random angle, to get enough. The scans of an image follow
    each other, so early and late requests share no image.
    """
    count = round(NORMAL_SHARE * len(held_out["label"]))
    images, labels = held_out["image"], held_out["label"][count:].tolist()
    rng = np.random.default_rng(0)
    scans = max(1, round(SHIFTED_COUNT / max(1, len(labels))))
    return [
        _labelled_item(dataset, scanned(image, rng.uniform(*ROTATION)), label)
        for row, label in enumerate(labels, count)
        for image in [images[row]] * scans
    ]


def scanned(image: np.ndarray, angle: float) -> np.ndarray:
    """Rotate an image (channel, row, column) in 0..1 by degrees and lower its contrast."""
    rotated = [
        np.asarray(Image.fromarray(channel).rotate(angle, Image.Resampling.BICUBIC))
        for channel in image.astype(np.float32)
    ]
    return CONTRAST * np.stack(rotated).clip(0, 1)


def _labelled_item(dataset: Dataset, image: np.ndarray, label: int) -> LabelledItem:
    contract = dataset.contract
    return Item.model_validate(contract.item(image)), GroundTruth(label=contract.labels[label])
