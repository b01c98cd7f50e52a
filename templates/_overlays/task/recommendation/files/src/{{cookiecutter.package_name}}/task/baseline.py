"""Simple models that the network has to beat, on the same split.

Their settings are tuned on the validation split, as the network's best epoch is chosen there. Like
the network, they learn from all items of the training users. Why these, and why tuned: Dacrema,
Cremonesi and Jannach, Are We Really Making Much Progress?, RecSys 2019.
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from ..arrays import Arrays
from . import linear, ranking
from .contract import K
from .data import Dataset
from .neighbours import Neighbours
from .settings import Settings

POPULARITY, USER_KNN, KNN = "Popularity", "User kNN", "Item kNN"
EASE, EDLAE = "EASE", "EDLAE"


def names() -> list[str]:
    """Name the baselines before they are fitted."""
    return [POPULARITY, USER_KNN, KNN, EASE, EDLAE]


def advice(settings: Settings) -> dict[str, str]:
    """Return settings that may help the network where a baseline is ahead, with the reason."""
    blend, neighbours = settings.model.blend, settings.model.neighbours
    added = "more weight for EDLAE's scores" if blend else "adds EDLAE's scores to the network's"
    return {
        f"model.blend={2 * blend or 8:g}": added,
        **({} if neighbours else {"model.neighbours=2": "adds what the nearest users have"}),
        **({"model.dropout=0.6": "few users overfit"} if settings.model.dropout < 0.6 else {}),
        **({"train.batch_size=64": "more steps"} if settings.train.batch_size > 64 else {}),
    }


def fit_and_predict(dataset: Dataset) -> Iterator[tuple[str, Arrays]]:
    """Fit each baseline; yield its name and its outputs (`scores`) on the test split."""
    count = len(dataset.contract.items)
    pairs = linear.pair_counts(linear.all_items(dataset.train), count)
    history, validation = dataset.test["history"], dataset.validation
    popular = np.tile(pairs.diagonal().astype(np.float32), (len(history), 1))
    yield POPULARITY, {"scores": popular}
    yield USER_KNN, {"scores": _nearest_users(dataset, count).scores(history)}
    searches: dict[str, Callable[[], np.ndarray]] = {
        KNN: lambda: linear.tuned(
            (
                lambda chosen=(neighbours, shrink, power): linear.knn(pairs, *chosen)
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
    for name, search in searches.items():
        yield name, {"scores": linear.item_scores(history, search())}


def _nearest_users(dataset: Dataset, count: int) -> Neighbours:
    """Return the nearest-users model with the best recall@10 on the validation split."""

    def fit(length_power: float, sharpness: float) -> Neighbours:
        users = Neighbours(len(dataset.train["history"]), count, sharpness)
        users.fit(dataset.train, length_power)
        return users

    def recall(pair: tuple[float, float]) -> float:
        scores = fit(*pair).scores(dataset.validation["history"])
        return ranking.mean_recall(scores, dataset.validation, K)

    return fit(*max(product((0.3, 0.5), (5.0, 10.0, 20.0)), key=recall))
