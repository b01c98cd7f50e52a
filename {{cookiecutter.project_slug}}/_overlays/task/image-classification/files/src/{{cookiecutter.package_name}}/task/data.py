"""Load, check and split the images.

Splits are made so that nothing leaks from one part to another: digits and MNIST follow their
writers through the file, so their parts are contiguous blocks; in a folder, copies of one picture
always land in the same part, and a picture keeps its part when others are added.
"""

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..config import UserError
from ..interfaces import Arrays, LabelledItem, Splits
from . import splits
from .contract import Contract, picture
from .settings import DataSettings

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits of `image` float32 (n, channel, row, column) in 0..1 and `label` int64 (n,)."""

    contract: Contract

    def example(self) -> dict[str, Any]:
        """A request's item, made of the first test image."""
        return self.contract.item(self.test["image"][0])

    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Requests with their classes as a split's arrays; ValueError for unusable ones."""
        return splits.labelled_arrays(self.contract, pairs)

    def holdout(self, share: float) -> tuple[Self, Arrays]:
        """The splits without a random `share` of the test rows, and these rows."""
        kept, aside = splits.drawn(len(self.test["label"]), share)
        test = {name: array[kept] for name, array in self.test.items()}
        return replace(self, test=test), {name: array[aside] for name, array in self.test.items()}


def load(settings: DataSettings) -> Dataset:
    """The data that the settings name; UserError in one line naming the file when it is unfit."""
    if settings.source == "digits":
        return _digits(settings)
    folder = settings.path
    assert folder is not None, "the settings' own check"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (data.path)")
    return _mnist(settings, folder) if settings.source == "mnist" else _folder(settings, folder)


def _digits(settings: DataSettings) -> Dataset:
    from sklearn.datasets import load_digits

    pixels, digits = map(np.asarray, load_digits(return_X_y=True))
    images = (pixels.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    fold = _blocks(len(images), settings.folds)
    contract = Contract(labels=[str(digit) for digit in range(10)], size=(8, 8), color=False)
    about = (
        "scikit-learn's handwritten digits (UCI, CC BY 4.0), 8 × 8 grey levels. The file follows "
        f"its writers, so it is cut into {settings.folds} contiguous blocks, not shuffled."
    )
    return _split(settings, images, digits.astype(np.int64), fold, contract, about)


def _mnist(settings: DataSettings, folder: Path) -> Dataset:
    images, labels = _idx_pair(folder, "train")
    test_images, test_labels = _idx_pair(folder, "t10k")
    if images.shape[1:] != test_images.shape[1:]:
        raise UserError(f"{folder}: training and test images differ in size")
    names = [str(label) for label in sorted({*labels.tolist(), *test_labels.tolist()})]
    lookup = {int(name): index for index, name in enumerate(names)}
    splits.two_classes(folder, names)
    last = _blocks(len(images), settings.folds) == settings.folds - 1
    parts = [(images[~last], labels[~last]), (images[last], labels[last])]
    train, validation, test = (
        {
            "image": (part[:, None] / 255).astype(np.float32),
            "label": np.array([lookup[int(label)] for label in target], np.int64),
        }
        for part, target in [*parts, (test_images, test_labels)]
    )
    contract = Contract(labels=names, size=(images.shape[1], images.shape[2]), color=False)
    about = (
        "Images in MNIST's file format with its own test files; the last "
        f"{100 // settings.folds} % of the training file are kept for validation."
    )
    return _checked(folder, Dataset(train, validation, test, about, contract))


def _folder(settings: DataSettings, folder: Path) -> Dataset:
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    if not classes:
        raise UserError(f"{folder}: is empty, it must hold one folder of images per class")
    splits.two_classes(folder, [path.name for path in classes])
    images, labels, folds = [], [], []
    size = (settings.size, settings.size)
    seen: dict[str, Path] = {}
    for label, path in enumerate(classes):
        files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES]
        if not files:
            raise UserError(f"{path}: holds no image ({', '.join(sorted(SUFFIXES))})")
        for file in files:
            try:
                content = picture(file, size, settings.color)
            except ValueError as error:
                raise UserError(f"{file}: {error}") from None
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            twin = seen.setdefault(digest, file)
            if classes[label] not in twin.parents:
                raise UserError(f"{file}: is the same picture as {twin}, in another class")
            images.append(content)
            labels.append(label)
            folds.append(int(digest, 16) % settings.folds)
    contract = Contract(labels=[path.name for path in classes], size=size, color=settings.color)
    about = (
        f"{len(images):,} pictures in {len(classes)} folders, scaled to {settings.size} × "
        f"{settings.size}; each picture's own hash decides which split it belongs to."
    )
    arrays = np.stack(images), np.array(labels, np.int64), np.array(folds)
    return _checked(folder, _split(settings, *arrays, contract, about))


def _split(
    settings: DataSettings,
    images: np.ndarray,
    labels: np.ndarray,
    fold: np.ndarray,
    contract: Contract,
    about: str,
) -> Dataset:
    validation_fold = (settings.test_fold - 1) % settings.folds
    in_test, in_validation = fold == settings.test_fold, fold == validation_fold
    train, validation, test = (
        {"image": images[rows], "label": labels[rows]}
        for rows in (~in_test & ~in_validation, in_validation, in_test)
    )
    return Dataset(train, validation, test, about, contract)


def _blocks(count: int, folds: int) -> np.ndarray:
    """Which of `folds` contiguous blocks of nearly equal size each of `count` rows is in."""
    return np.arange(count) * folds // count


def _checked(where: Path, dataset: Dataset) -> Dataset:
    return splits.checked(where, dataset, dataset.contract.labels, "image", "data.folds")


def _idx_pair(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    image_file, images = _idx(folder, f"{part}-images-idx3-ubyte", dimensions=3)
    label_file, labels = _idx(folder, f"{part}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise UserError(f"{label_file}: {len(labels)} labels for {len(images)} in {image_file}")
    return images, labels


def _idx(folder: Path, name: str, dimensions: int) -> tuple[Path, np.ndarray]:
    """An IDX file of unsigned bytes, plain or gzipped.

    Format: http://yann.lecun.com/exdb/mnist/ - two zero bytes, type 0x08, number of dimensions,
    each dimension as a big-endian 32-bit integer, then the values.
    """
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise UserError(f"{folder / name}: no such file (nor {name}.gz)")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < 4 + 4 * dimensions:
        raise UserError(f"{path}: is not an IDX file of bytes with {dimensions} dimensions")
    shape = tuple(np.frombuffer(content, ">u4", dimensions, offset=4).tolist())
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if 0 in shape or values.size != np.prod(shape):
        expected = " × ".join(map(str, shape))
        raise UserError(f"{path}: announces {expected} values and holds {values.size}")
    return path, values.reshape(shape)
