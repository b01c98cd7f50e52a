"""What every classifier's data and baselines share: checks, labelled items, model selection."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..arrays import Arrays
from ..config import UserError
from ..interfaces import LabelledItem, Splits
from .classes import class_index, short_list

D = TypeVar("D", bound=Splits)

SMALL_TEST = 100  # fewer test examples are told; they know an accuracy of 90 % to ± 6 points
SEARCH_ROWS = 5000  # training rows that settings are compared on; the best is fitted to all


def require_two_classes(source: object, names: list[str]) -> None:
    """Raise UserError unless there are at least two classes."""
    if len(names) < 2:
        raise UserError(f"{source}: only one class ({', '.join(names)}), a classifier needs two")


def check_splits(source: object, dataset: D, labels: list[str], noun: str, settings: str) -> D:
    """Return the data set with notes on its splits; UserError if a split is empty or a class has
    no training example.

    `noun` names an example in messages, `settings` those that would enlarge a split.
    """
    for name in ("validation", "test"):
        if not len(getattr(dataset, name)["label"]):
            raise UserError(f"{source}: too few {noun}s, none is left for {name} ({settings})")
    trained = set(dataset.train["label"].tolist())
    for label, name in enumerate(labels):
        if label not in trained:
            raise UserError(f"{source}: no {noun} of class {name!r} is left for training")
    notes = _notes_on_splits(dataset, labels, noun, settings)
    return replace(dataset, notes=(*dataset.notes, *notes))


def _notes_on_splits(dataset: Splits, labels: list[str], noun: str, settings: str) -> Iterator[str]:
    """Name the classes that a split lacks; warn of a small test split."""
    for name in ("validation", "test"):
        present = set(getattr(dataset, name)["label"].tolist())
        absent = [text for label, text in enumerate(labels) if label not in present]
        if absent:
            yield (
                f"The {name} split has no {noun} of {len(absent)} of the {len(labels)} classes "
                f"({short_list(absent)}): its results say nothing about them."
            )
    count = len(dataset.test["label"])
    if count < SMALL_TEST:
        points = 196 * math.sqrt(0.9 * 0.1 / count)
        yield (
            f"The test split has only {count} {noun}s: an accuracy of 90 % would be known to about "
            f"± {points:.0f} points ({settings} can enlarge it)."
        )


def encode_labelled_items(contract: Any, pairs: Sequence[LabelledItem]) -> Arrays:
    """Encode items as the network's inputs, and their classes as `label` int64 (n,).

    Raises ValueError for an item that the contract refuses and for an unknown class.
    """
    labels = [class_index(ground_truth, contract.labels) for _, ground_truth in pairs]
    return {**contract.encode([item for item, _ in pairs]), "label": np.array(labels, np.int64)}


def fit_best(
    models: Iterable[Any],
    train: tuple[Any, np.ndarray],
    validation: tuple[Any, np.ndarray],
    score: Callable[[np.ndarray, np.ndarray], float],
    rows: int = SEARCH_ROWS,
) -> Any:
    """Fit the scikit-learn model that is best on validation to all of `train`, and return it.

    Both splits are (inputs, labels); `score` takes labels and predictions, higher is better;
    at most `rows` of `train` are used to compare.
    """
    inputs, labels = train
    sample = np.linspace(0, len(labels) - 1, min(len(labels), rows)).astype(int)

    def validation_score(model: Any) -> float:
        predicted = model.fit(inputs[sample], labels[sample]).predict(validation[0])
        return float(score(validation[1], predicted))

    return max(models, key=validation_score).fit(inputs, labels)
