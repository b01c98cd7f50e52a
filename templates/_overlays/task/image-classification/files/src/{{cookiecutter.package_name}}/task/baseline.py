"""Simple models that the network has to beat, on the same split.

Their settings are tuned on the validation split, as the network's best epoch is chosen there. They
learn from at most MAX_IMAGES images of at most MAX_VALUES values, which their names then say: an
SVM on 50,000 photographs would take days. They are tested on every test image.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ..arrays import Arrays, in_chunks, row_count
from . import splits
from .data import Dataset
from .settings import Settings

MAX_IMAGES = 10_000  # of training; of validation half as many
MAX_VALUES = 1024  # pixels times channels; larger images are reduced


def candidates() -> dict[str, list[Any]]:
    """List each baseline with the settings to try."""
    return {
        "Logistic regression": [
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
            for c in (0.003, 0.03, 0.3)
        ],
        "k nearest neighbours": [KNeighborsClassifier(k) for k in (1, 3, 5)],
        "SVM with RBF kernel": [
            SVC(C=c, gamma=gamma) for c in (3, 10) for gamma in ("scale", "auto")
        ],
    }


def names() -> list[str]:
    """Name the baselines before they are fitted."""
    return list(candidates())


def advice(settings: Settings) -> dict[str, str]:
    """Return settings that may help the network where a baseline is ahead, with the reason."""
    return {
        f"train.epochs={2 * settings.train.epochs}": "small data needs more passes",
        f"model.width={2 * settings.model.width}": "a larger network",
        "objective.rotate=0": "augmentation hurts where direction tells classes apart",
    }


def fit_and_predict(dataset: Dataset) -> Iterator[tuple[str, Arrays]]:
    """Fit each baseline; yield its name and its outputs (`label`) on the test split."""
    train = _sample(dataset.train, MAX_IMAGES)
    validation = _sample(dataset.validation, MAX_IMAGES // 2)
    for name, models in candidates().items():
        best = splits.fit_best(models, train, validation, accuracy_score)
        chunks = in_chunks({"image": dataset.test["image"]})
        predicted = [best.predict(_flat(chunk["image"])) for chunk in chunks]
        yield name + _limits(dataset.train), {"label": np.concatenate(predicted)}


def _sample(split: Arrays, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (row, value) and labels (row,) of at most `most` random rows, in order."""
    rows = np.arange(row_count(split))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    blocks = [_flat(split["image"][part]) for part in np.array_split(rows, 1 + len(rows) // 1000)]
    return np.concatenate(blocks), split["label"][rows]


def _flat(images: np.ndarray) -> np.ndarray:
    """Flatten images (n, channel, row, column) to (n, value), as means of squares of pixels."""
    count, channels, height, width = images.shape
    side = _side(images.shape[1:])
    rows, columns = height // side, width // side
    whole = images[:, :, : rows * side, : columns * side]  # what is left at two edges is dropped
    squares = whole.reshape(count, channels, rows, side, columns, side)
    return squares.mean(axis=(3, 5)).reshape(count, -1)


def _side(shape: tuple[int, ...]) -> int:
    """Return the side of the squares that leave at most about MAX_VALUES of an image."""
    return min(math.ceil(math.sqrt(math.prod(shape) / MAX_VALUES)), *shape[1:])


def _limits(train: Arrays) -> str:
    """Say what a baseline does not see of the training split, "" if it sees all."""
    limits = []
    if (side := _side(train["image"].shape[1:])) > 1:
        height, width = (length // side for length in train["image"].shape[2:])
        limits.append(f"{height} × {width} pixels")
    if row_count(train) > MAX_IMAGES:
        limits.append(f"{MAX_IMAGES:,} images")
    return "".join(f", {limit}" for limit in limits)
