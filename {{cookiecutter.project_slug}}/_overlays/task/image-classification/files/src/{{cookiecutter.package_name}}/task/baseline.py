"""Simple models that the network has to beat, on the same split.

Their settings are tuned on the validation split, as the network's best epoch is chosen there.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ..arrays import Arrays
from . import splits
from .data import Dataset
from .settings import Settings


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
    train, validation = (
        (_flat(split), split["label"]) for split in (dataset.train, dataset.validation)
    )
    for name, models in candidates().items():
        best = splits.fit_best(models, train, validation, accuracy_score)
        yield name, {"label": best.predict(_flat(dataset.test))}


def _flat(split: Arrays) -> np.ndarray:
    return split["image"].reshape(len(split["image"]), -1)
