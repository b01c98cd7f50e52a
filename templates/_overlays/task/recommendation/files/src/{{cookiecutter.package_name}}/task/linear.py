"""Item-item models in closed form.

A user's score for an item is the sum of the weights of its pairs with the user's items. Only lists
and (items × items) matrices are in memory, never (users × items).
"""

from collections.abc import Callable, Iterable

import numpy as np

from ..arrays import Arrays
from . import ranking
from .contract import K

CHUNK_USERS = 4096  # users whose lists are expanded at a time


def all_items(split: Arrays) -> np.ndarray:
    """Return all items (n, length) of each user, held-out ones included."""
    return np.concatenate([split["history"], split["target"]], axis=1)


def pair_counts(lists: np.ndarray, count: int) -> np.ndarray:
    """Count the users who have both items (count, count); on the diagonal, who have the item."""
    total = np.zeros((count, count))
    for start in range(0, len(lists), CHUNK_USERS):
        rows = ranking.membership(lists[start : start + CHUNK_USERS], count).astype(np.float32)
        total += rows.T @ rows
    return total


def item_scores(history: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Score every item, float32 (n, count), for users with these items."""
    count, chunks = len(weights), []
    weights = weights.astype(np.float32)
    for start in range(0, len(history), CHUNK_USERS):
        rows = ranking.membership(history[start : start + CHUNK_USERS], count).astype(np.float32)
        chunks.append(rows @ weights)
    return np.concatenate(chunks)


def knn(pairs: np.ndarray, neighbours: int, shrink: float, power: float) -> np.ndarray:
    """Compute the weights of item-item nearest neighbours from `pair_counts`.

    Similarity n_ij / (n_i^power n_j^(1-power) + shrink); each item keeps its largest ones;
    power 0.5 without shrinking is the cosine. Deshpande and Karypis, Item-Based Top-N
    Recommendation Algorithms, 2004.
    """
    counts = pairs.diagonal()
    similar = pairs / np.maximum(np.outer(counts**power, counts ** (1 - power)) + shrink, 1e-9)
    np.fill_diagonal(similar, 0)
    if neighbours < len(counts):
        least = np.partition(similar, -neighbours, axis=0)[-neighbours]
        similar[similar < least] = 0
    return similar


def edlae(pairs: np.ndarray, ridge: float, dropout: float) -> np.ndarray:
    """Compute the weights of the linear autoencoder with zero diagonal from `pair_counts`.

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
    """Return the candidate weights with the best recall@10 on the validation split."""
    best_recall, best = -1.0, None
    for make in candidates:
        weights = make()
        recall = ranking.mean_recall(item_scores(validation["history"], weights), validation, K)
        if recall > best_recall:
            best_recall, best = recall, weights
    assert best is not None, "there is at least one candidate"
    return best


def tuned_edlae(pairs: np.ndarray, validation: Arrays) -> np.ndarray:
    """Return EDLAE's weights with both settings tuned on the validation split."""
    grid = [(ridge, dropout) for dropout in (0.35, 0.5, 0.65) for ridge in (3, 10, 30)]
    return tuned((lambda pair=pair: edlae(pairs, *pair) for pair in grid), validation)
