"""The best items of many scores, and what such lists are worth.

Items are numbered from 1, in lists that are filled up with 0 to rows of one length; column 0 of
the scores belongs to item 1. Every item that a user does not have yet competes: metrics on a
sample of the items rank models differently (Krichene and Rendle, On Sampled Metrics for Item
Recommendation, KDD 2020).
"""

import numpy as np

from ..interfaces import Arrays


def marks(lists: np.ndarray, count: int) -> np.ndarray:
    """Lists (n, length) as bool (n, count): whether an item is in the list."""
    found = np.zeros((len(lists), count + 1), bool)
    np.put_along_axis(found, lists, True, axis=1)
    return found[:, 1:]


def best(scores: np.ndarray, hidden: np.ndarray, most: int) -> np.ndarray:
    """The `most` best items (n, ≤ most) by scores (n, count), the best first, without those that
    are `hidden` (bool, like the scores); 0 where none is left."""
    open_scores = np.where(hidden, -np.inf, scores)
    most = min(most, scores.shape[1])
    found = np.argpartition(-open_scores, most - 1, axis=1)[:, :most]
    found.sort(axis=1)  # so that of equal scores the first item wins
    values = np.take_along_axis(open_scores, found, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    left = np.take_along_axis(values, order, axis=1) > -np.inf
    return np.where(left, np.take_along_axis(found, order, axis=1) + 1, 0)


def ranked(outputs: Arrays, split: Arrays, most: int) -> np.ndarray:
    """The best items (n, ≤ most) for each user of a split, what they have left out."""
    scores = outputs["scores"]
    return best(scores, marks(split["history"], scores.shape[1]), most)


def hits(lists: np.ndarray, split: Arrays) -> np.ndarray:
    """1.0 (n, place) where a recommended item is one that was held back, else 0."""
    count = max(lists.max(initial=0), split["target"].max(initial=0))
    wanted = np.zeros((len(lists), count + 1))
    np.put_along_axis(wanted, split["target"], 1.0, axis=1)
    wanted[:, 0] = 0
    return np.take_along_axis(wanted, lists, axis=1)


def lengths(lists: np.ndarray) -> np.ndarray:
    """How many items (n,) each list holds."""
    return (lists > 0).sum(axis=1)


def recall(hit: np.ndarray, wanted: np.ndarray, k: int) -> np.ndarray:
    """The share (n,) of the `wanted` (n,) items that are among the first k."""
    return hit[:, :k].sum(axis=1) / wanted


def ndcg(hit: np.ndarray, wanted: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain (n,) of the first k, an item counting 1 or 0.

    Järvelin and Kekäläinen, Cumulated Gain-Based Evaluation of IR Techniques, 2002; the ideal list
    begins with min(k, wanted) items that count.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(wanted, k) - 1]
    shown = hit[:, :k]
    return shown @ discount[: shown.shape[1]] / ideal


def coverage(lists: np.ndarray, count: int) -> float:
    """The share of all items that are in at least one of the lists."""
    return float((np.bincount(lists.ravel(), minlength=count + 1)[1:] > 0).mean())
