"""Simple models that the network has to beat, on the same split.

Their settings are tuned on the validation split, as the network's best epoch is chosen there. Like
the network, they learn from all items of the training users. Why these, and why tuned: Dacrema,
Cremonesi and Jannach, Are We Really Making Much Progress?, RecSys 2019.
"""

from collections.abc import Callable, Iterator

import numpy as np

from ..arrays import Arrays
from . import linear
from .data import Dataset
from .settings import Settings

POPULARITY, KNN, EASE, EDLAE = "Popularity", "Item kNN", "EASE", "EDLAE"


def names() -> list[str]:
    """Name the baselines before they are fitted."""
    return [POPULARITY, KNN, EASE, EDLAE]


def advice(settings: Settings) -> dict[str, str]:
    """Return settings that may help the network where a baseline is ahead, with the reason."""
    blend = settings.model.blend
    added = "more weight for EDLAE's scores" if blend else "adds EDLAE's scores to the network's"
    return {
        f"model.blend={2 * blend or 8:g}": added,
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
