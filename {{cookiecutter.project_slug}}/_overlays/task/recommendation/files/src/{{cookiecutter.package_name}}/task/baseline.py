"""The simple models that the network has to beat, on the same split and in good health.

Each one's settings are chosen on the validation split, like the network's best epoch. As in
training, all items of the training users are learned from. Dacrema, Cremonesi and Jannach (Are We
Really Making Much Progress?, RecSys 2019) tell why they are tuned and why they are these.
"""

from collections.abc import Callable, Iterator

import numpy as np

from ..interfaces import Arrays
from . import linear
from .data import Dataset

POPULARITY, KNN, EASE, EDLAE = "Popularity", "Item kNN", "EASE", "EDLAE"


def names() -> list[str]:
    """What `predictions` will go through, to announce it."""
    return [POPULARITY, KNN, EASE, EDLAE]


def predictions(dataset: Dataset) -> Iterator[tuple[str, Arrays]]:
    """(name, outputs on the test split) of each baseline."""
    count = len(dataset.contract.items)
    pairs = linear.together(linear.everything(dataset.train), count)
    history, validation = dataset.test["history"], dataset.validation
    popular = np.tile(pairs.diagonal().astype(np.float32), (len(history), 1))
    yield POPULARITY, {"scores": popular}
    searched: dict[str, Callable[[], np.ndarray]] = {
        KNN: lambda: linear.tuned(
            (
                lambda wish=(neighbours, shrink, power): linear.knn(pairs, *wish)
                for neighbours in (50, 200, count)
                for shrink in (0, 3, 10)
                for power in (0.35, 0.5, 0.65)
            ),
            validation,
        ),
        EASE: lambda: linear.tuned(
            (lambda ridge=ridge: linear.edlae(pairs, ridge, 0) for ridge in (3, 10, 30, 100, 300)),
            validation,
        ),
        EDLAE: lambda: linear.tuned_edlae(pairs, validation),
    }
    for name, search in searched.items():
        yield name, {"scores": linear.scores(history, search())}
