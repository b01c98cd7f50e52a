"""The loss and the metrics."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arrays import Arrays
from ..interfaces import MetricFormat, Metrics, ScoreMetric
from . import ranking
from .contract import Contract, K
from .settings import Settings

PRIMARY_METRIC = "recall_at_10"
HIGHER_IS_BETTER = True
PROPER_SCORE = ScoreMetric(PRIMARY_METRIC, HIGHER_IS_BETTER)  # rankings state no probabilities
BLOCK_LENGTH = 1  # each test user counts for themselves
MIN_SLICE_EXAMPLES = 20  # the mean of fewer users is too noisy to compare
TABLE_K = (1, 5, 10, 20, 50)

METRICS = {
    "recall_at_10": MetricFormat(
        "Recall@10, %",
        100,
        1,
        "mean over test users of (held-out items among the first 10) / (held-out items); not "
        "divided by min(10, held-out items), so a user with 20 of them gets 50 % at most",
    ),
    "ndcg_at_10": MetricFormat(
        "NDCG@10, %",
        100,
        1,
        "mean over test users of DCG / ideal DCG, where DCG is the sum of 1 / log2(place + 1) over "
        "hits in the first 10 and the ideal list begins with min(10, held-out items) hits",
    ),
    "coverage_at_10": MetricFormat(
        "Coverage@10, %", 100, 1, "share of all items that are among the first 10 of a test user"
    ),
    "popularity_lift": MetricFormat(
        "Popularity lift",
        1,
        2,
        "mean share of training users who have a recommended item, relative to that of the "
        "held-out items; 1 is as popular as what users choose",
    ),
}


def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Compute the cross entropy of all of a user's items, given a random part of them, another
    part for each of the network's members.

    Items that the network does not see have a larger weight. The softmax over all items is the
    multinomial likelihood of Liang, Krishnan, Hoffman and Jebara, Variational Autoencoders for
    Collaborative Filtering, WWW 2018.
    """
    chosen = settings.objective
    items = torch.cat([batch["history"], batch["target"]], dim=1)
    items = items.repeat(settings.model.members, 1)
    uniform = torch.rand(len(items), items.shape[1] + 1, device=items.device)
    share = chosen.keep_least + (chosen.keep_most - chosen.keep_least) * uniform[:, :1]
    kept = uniform[:, 1:] < share
    predicted = network(items.masked_fill(~kept, 0))
    weight = torch.where(kept, chosen.kept_weight, 1.0)
    target = predicted.new_zeros(len(items), predicted.shape[1] + 1)
    target = target.scatter(1, items.long(), weight)
    return functional.cross_entropy(predicted, functional.normalize(target[:, 1:], p=1.0))


def scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """Score users (n,): the recall of the first 10 recommendations."""
    is_hit = ranking.hits(ranking.recommend(outputs, split, K), split)
    return ranking.recall(is_hit, ranking.lengths(split["target"]), K)


slice_scores = scores


def metrics(outputs: Arrays, split: Arrays, contract: Contract) -> Metrics:
    """Compute recall@10, NDCG@10, the share of items that are recommended to anybody, and the
    popularity of recommended items relative to that of the held-out ones."""
    lists = ranking.recommend(outputs, split, K)
    row = _list_metrics(lists, split, contract, K)
    popularity, usual = (_mean_popularity(rows, contract) for rows in (lists, split["target"]))
    return {
        "recall_at_10": row["recall"],
        "ndcg_at_10": row["ndcg"],
        "coverage_at_10": row["coverage"],
        "popularity_lift": popularity / usual,
    }


def details(outputs: Arrays, split: Arrays, contract: Contract) -> dict[str, Any]:
    """Compute the metrics by length of the list, by length of the history, for users in training
    and new ones, and by the popularity of the held-out item."""
    lists = ranking.recommend(outputs, split, max(TABLE_K))
    return {
        "by_k": {str(k): _list_metrics(lists, split, contract, k) for k in TABLE_K},
        "by_history": _group_metrics(_by_history(split), lists, split, contract),
        "by_user": _group_metrics(_by_user(split), lists, split, contract),
        "errors_by_popularity": _by_popularity(lists[:, :K], split, contract),
    }


def _by_popularity(lists: np.ndarray, split: Arrays, contract: Contract) -> dict[str, Any]:
    """Compute how well popular and rare items are found, and how often they are recommended.

    Popular items are the fewest that make up a third of all interactions in training, rare ones
    those of the last third.
    """
    order = np.argsort(-contract.shares, kind="stable")
    before = np.cumsum(contract.shares[order]) - contract.shares[order]
    group = np.empty(len(order), int)
    group[order] = np.minimum(3 * before / contract.shares.sum() + 1e-9, 2).astype(int)
    targets = split["target"]
    users = np.broadcast_to(np.arange(len(lists))[:, None], targets.shape)[targets > 0]
    wanted = targets[targets > 0] - 1
    is_found = ranking.membership(lists, len(order))[users, wanted]
    recommended = group[lists[lists > 0] - 1]
    return {
        name: {
            "recall": float(is_found[group[wanted] == number].mean()),
            "share_of_lists": float((recommended == number).mean()),
            "share_of_held_out": float((group[wanted] == number).mean()),
            "items": int((group == number).sum()),
        }
        for number, name in enumerate(("popular", "middle", "rare"))
        if (group[wanted] == number).any()
    }


def slices(split: Arrays, contract: Contract) -> dict[str, np.ndarray]:
    """Select users, bool (n,), by length of the history and by whether they are in training."""
    history = {f"{name} items": mask for name, mask in _by_history(split).items()}
    masks = {**history, **_by_user(split)}
    return {name: mask for name, mask in masks.items() if mask.sum() >= MIN_SLICE_EXAMPLES}


def _by_history(split: Arrays) -> dict[str, np.ndarray]:
    length = ranking.lengths(split["history"])
    groups = {"1 to 4": (1, 4), "5 to 9": (5, 9), "10 to 19": (10, 19), "20 or more": (20, np.inf)}
    return {name: (length >= low) & (length <= high) for name, (low, high) in groups.items()}


def _by_user(split: Arrays) -> dict[str, np.ndarray]:
    return {"never seen": ~split["seen"], "seen in training": split["seen"]}


def _group_metrics(
    groups: dict[str, np.ndarray], lists: np.ndarray, split: Arrays, contract: Contract
) -> dict[str, dict[str, float]]:
    """Compute the metrics of each group that has users."""
    tables = {}
    for name, rows in groups.items():
        if rows.any():
            part = {key: array[rows] for key, array in split.items()}
            tables[name] = _list_metrics(lists[rows], part, contract, K)
    return tables


def _list_metrics(lists: np.ndarray, split: Arrays, contract: Contract, k: int) -> dict[str, float]:
    is_hit, relevant = ranking.hits(lists, split), ranking.lengths(split["target"])
    return {
        "recall": float(ranking.recall(is_hit, relevant, k).mean()),
        "ndcg": float(ranking.ndcg(is_hit, relevant, k).mean()),
        "coverage": ranking.coverage(lists[:, :k], len(contract.items)),
        "users": len(lists),
    }


def _mean_popularity(lists: np.ndarray, contract: Contract) -> float:
    """Return the mean share of training users who have an item of the lists."""
    return float(np.maximum(contract.shares[lists[lists > 0] - 1].mean(), 1e-12))
