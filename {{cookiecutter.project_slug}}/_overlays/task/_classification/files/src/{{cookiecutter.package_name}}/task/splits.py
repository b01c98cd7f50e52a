"""What every problem with one class per example checks in its data and asks of its baselines."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..config import UserError
from ..interfaces import Arrays, LabelledItem, Splits
from . import classes

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


def labelled_arrays(contract: Any, pairs: Sequence[LabelledItem]) -> Arrays:
    """The network's inputs of the items, and `label` int64 (n,), the classes of their truths.

    Raises ValueError for an item that the contract refuses and for a class that it does not know.
    """
    labels = [classes.class_index(truth, contract.labels) for _, truth in pairs]
    return {**contract.encode([item for item, _ in pairs]), "label": np.array(labels, np.int64)}


def drawn(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Of so many rows those to keep, in their order, and a random `share` of them in any order.

    Neighbours are alike (one writer's digits, one library's texts): the last rows would be of
    another kind than those before them.
    """
    order = np.random.default_rng(0).permutation(count)
    kept = round((1 - share) * count)
    return np.sort(order[:kept]), order[kept:]


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
