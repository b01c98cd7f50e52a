"""Item-item models that need no gradient: a user's score of an item is the sum, over the items
that the user has, of a weight for the pair. Only users' lists and (items × items) are in memory.
"""

from collections.abc import Callable, Iterable

import numpy as np

from ..interfaces import Arrays
from . import ranking

ROWS = 4096  # users that are unpacked at a time
K = 10


def everything(split: Arrays) -> np.ndarray:
    """All items (n, length) of each user, those held back included."""
    return np.concatenate([split["history"], split["target"]], axis=1)


def together(lists: np.ndarray, count: int) -> np.ndarray:
    """How many users (count, count) have both items; the diagonal: how many have the item."""
    total = np.zeros((count, count))
    for start in range(0, len(lists), ROWS):
        rows = ranking.marks(lists[start : start + ROWS], count).astype(np.float32)
        total += rows.T @ rows
    return total


def scores(history: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores float32 (n, count) of every item for users with these items."""
    count, parts = len(weights), []
    weights = weights.astype(np.float32)
    for start in range(0, len(history), ROWS):
        rows = ranking.marks(history[start : start + ROWS], count).astype(np.float32)
        parts.append(rows @ weights)
    return np.concatenate(parts)


def knn(pairs: np.ndarray, neighbours: int, shrink: float, power: float) -> np.ndarray:
    """Weights of item-item nearest neighbours, from the counts of `together`.

    Similarity n_ij / (n_i^power n_j^(1-power) + shrink), of which each item keeps its largest;
    power 0.5 without shrinking is the cosine. Deshpande and Karypis, Item-Based Top-N
    Recommendation Algorithms, 2004.
    """
    own = pairs.diagonal()
    similar = pairs / np.maximum(np.outer(own**power, own ** (1 - power)) + shrink, 1e-9)
    np.fill_diagonal(similar, 0)
    if neighbours < len(own):
        least = np.partition(similar, -neighbours, axis=0)[-neighbours]
        similar[similar < least] = 0
    return similar


def edlae(pairs: np.ndarray, ridge: float, dropout: float) -> np.ndarray:
    """Weights of the linear autoencoder with zero diagonal, from the counts of `together`.

    EDLAE: Steck, Autoencoders that don't overfit towards the Identity, NeurIPS 2020, equation 10
    with Λ = ridge + dropout / (1 - dropout) diag(XᵀX). Without dropout it is EASE: Steck,
    Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.
    """
    penalty = ridge + dropout / (1 - dropout) * pairs.diagonal()
    inverse = np.linalg.inv(pairs + np.diag(penalty))
    weights = inverse / -inverse.diagonal()
    np.fill_diagonal(weights, 0)
    return weights


def tuned(candidates: Iterable[Callable[[], np.ndarray]], validation: Arrays) -> np.ndarray:
    """The weights with the best recall among the first 10 on the validation split."""
    top, winner = -1.0, None
    for make in candidates:
        weights = make()
        outputs = {"scores": scores(validation["history"], weights)}
        lists = ranking.ranked(outputs, validation, K)
        hit, wanted = ranking.hits(lists, validation), ranking.lengths(validation["target"])
        value = float(ranking.recall(hit, wanted, K).mean())
        if value > top:
            top, winner = value, weights
    assert winner is not None, "there is a candidate"
    return winner


def tuned_edlae(pairs: np.ndarray, validation: Arrays) -> np.ndarray:
    """EDLAE's weights with its two settings chosen on the validation split."""
    grid = [(ridge, dropout) for dropout in (0.35, 0.5, 0.65) for ridge in (3, 10, 30)]
    return tuned((lambda pair=pair: edlae(pairs, *pair) for pair in grid), validation)
