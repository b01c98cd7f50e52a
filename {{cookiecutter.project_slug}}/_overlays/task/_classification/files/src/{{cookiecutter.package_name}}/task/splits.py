"""What every problem with one class per example checks in its data and asks of its baselines."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from ..config import UserError
from ..seam import Splits

D = TypeVar("D", bound=Splits)

SEARCH_ROWS = 5000  # to compare settings on; the winner gets all


def two_classes(where: object, names: list[str]) -> None:
    """UserError unless there is something to tell apart."""
    if len(names) < 2:
        raise UserError(f"{where}: only one class ({', '.join(names)}), a classifier needs two")


def checked(where: object, dataset: D, labels: list[str], noun: str, shares: str) -> D:
    """The dataset, unless a part is empty or a class never trained; UserError then.

    `noun` says what an example is, `shares` which setting makes a part larger.
    """
    for name in ("validation", "test"):
        if not len(getattr(dataset, name)["label"]):
            raise UserError(f"{where}: too few {noun}s, none is left for {name} ({shares})")
    trained = set(dataset.train["label"].tolist())
    for label, name in enumerate(labels):
        if label not in trained:
            raise UserError(f"{where}: no {noun} of class {name!r} is left for training")
    return dataset


def fit_best(
    models: Iterable[Any],
    train: tuple[Any, np.ndarray],
    validation: tuple[Any, np.ndarray],
    score: Callable[[np.ndarray, np.ndarray], float],
    rows: int = SEARCH_ROWS,
) -> Any:
    """Of some models of scikit-learn the one that is best on validation, fitted to `train`.

    Both splits are (inputs, labels); `score` compares labels with answers, the higher the better;
    only so many `rows` of `train` are used to compare.
    """
    inputs, labels = train
    some = np.linspace(0, len(labels) - 1, min(len(labels), rows)).astype(int)

    def worth(model: Any) -> float:
        return float(
            score(validation[1], model.fit(inputs[some], labels[some]).predict(validation[0]))
        )

    return max(models, key=worth).fit(inputs, labels)
