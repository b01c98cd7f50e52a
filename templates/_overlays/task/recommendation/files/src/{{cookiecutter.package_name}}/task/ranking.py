"""Recommend the best items, and measure lists of recommendations.

Lists contain item numbers from 1, padded with 0; column 0 of scores belongs to item 1. All items
that a user does not have are ranked: metrics on a sample of the items rank models differently
(Krichene and Rendle, On Sampled Metrics for Item Recommendation, KDD 2020).
"""

import numpy as np

from ..arrays import Arrays


def membership(lists: np.ndarray, count: int) -> np.ndarray:
    """Return which items are in each list (n, length), bool (n, count)."""
    is_member = np.zeros((len(lists), count + 1), bool)
    np.put_along_axis(is_member, lists, True, axis=1)
    return is_member[:, 1:]


def best(scores: np.ndarray, hidden: np.ndarray, k: int) -> np.ndarray:
    """Return the k best items (n, ≤ k) by scores (n, count), the best first.

    Items that are `hidden` (bool, like the scores) are left out; 0 where none is left.
    """
    visible = np.where(hidden, -np.inf, scores)
    k = min(k, scores.shape[1])
    items = np.argpartition(-visible, k - 1, axis=1)[:, :k]
    items.sort(axis=1)  # of equal scores the first item wins
    values = np.take_along_axis(visible, items, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    is_visible = np.take_along_axis(values, order, axis=1) > -np.inf
    return np.where(is_visible, np.take_along_axis(items, order, axis=1) + 1, 0)


def recommend(outputs: Arrays, split: Arrays, k: int) -> np.ndarray:
    """Return the k best items (n, ≤ k) for each user of a split, without their own."""
    scores = outputs["scores"]
    return best(scores, membership(split["history"], scores.shape[1]), k)


def hits(lists: np.ndarray, split: Arrays) -> np.ndarray:
    """Return 1.0 (n, place) where a recommended item is a held-out one, else 0."""
    count = max(lists.max(initial=0), split["target"].max(initial=0))
    is_relevant = np.zeros((len(lists), count + 1))
    np.put_along_axis(is_relevant, split["target"], 1.0, axis=1)
    is_relevant[:, 0] = 0
    return np.take_along_axis(is_relevant, lists, axis=1)


def lengths(lists: np.ndarray) -> np.ndarray:
    """Return the number of items (n,) in each list."""
    return (lists > 0).sum(axis=1)


def recall(is_hit: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Return the share (n,) of the `relevant` (n,) items that are among the first k.

    Hits among the first k, divided by all relevant items, not by min(k, relevant): of more than k
    relevant items not all can be found, so the best possible value is below 1.
    """
    return is_hit[:, :k].sum(axis=1) / relevant


def mean_recall(scores: np.ndarray, split: Arrays, k: int) -> float:
    """Return the mean recall of the first k by scores (n, count), by which models are tuned."""
    lists = recommend({"scores": scores}, split, k)
    return float(recall(hits(lists, split), lengths(split["target"]), k).mean())


def ndcg(is_hit: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Return the normalised discounted cumulative gain (n,) of the first k, with binary gains.

    A hit at place p gains 1 / log2(p + 1); the sum is divided by that of the ideal list, which
    begins with min(k, relevant) hits. Järvelin and Kekäläinen, Cumulated Gain-Based Evaluation of
    IR Techniques, 2002.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(relevant, k) - 1]
    top = is_hit[:, :k]
    return top @ discount[: top.shape[1]] / ideal


def coverage(lists: np.ndarray, count: int) -> float:
    """Return the share of all items that are in at least one list."""
    return float((np.bincount(lists.ravel(), minlength=count + 1)[1:] > 0).mean())
