"""What training minimises and what counts in the end."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..interfaces import Arrays, MetricFormat, Metrics
from . import ranking
from .contract import Contract, K
from .settings import Settings

PRIMARY_METRIC = "recall_at_10"  # the metric by which epochs, seeds and models are compared
HIGHER_IS_BETTER = True
BLOCK_LENGTH = 1  # test examples in a row that belong together and are resampled together
FEWEST = 20  # users of a slice: of fewer no mean says much
TABLE_K = (1, 5, 10, 20, 50)

METRICS = {
    "recall_at_10": MetricFormat("Recall@10, %", 100, 1),
    "ndcg_at_10": MetricFormat("NDCG@10, %", 100, 1),
    "coverage_at_10": MetricFormat("Coverage@10, %", 100, 1),
    "popularity_lift": MetricFormat("Popularity lift", 1, 2),
}


def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The loss of a training batch: the network sees a random part of each user's items and is to
    name them all, those that it does not see above the others.

    Cross entropy with the softmax over all items, the multinomial likelihood of Liang, Krishnan,
    Hoffman and Jebara, Variational Autoencoders for Collaborative Filtering, WWW 2018.
    """
    own = settings.objective
    items = torch.cat([batch["history"], batch["target"]], dim=1)
    draw = torch.rand(len(items), items.shape[1] + 1, device=items.device)
    share = own.keep_least + (own.keep_most - own.keep_least) * draw[:, :1]
    kept = draw[:, 1:] < share
    scores = network(items.masked_fill(~kept, 0))
    weight = torch.where(kept, own.kept_weight, 1.0)
    wanted = scores.new_zeros(len(items), scores.shape[1] + 1).scatter(1, items.long(), weight)
    wanted = functional.normalize(wanted[:, 1:], p=1.0)
    return functional.cross_entropy(scores, wanted)


def scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """One number (n,) per user; their mean is the metric that decides."""
    hit = ranking.hits(ranking.ranked(outputs, split, K), split)
    return ranking.recall(hit, ranking.lengths(split["target"]), K)


def metrics(outputs: Arrays, split: Arrays, contract: Contract) -> Metrics:
    """Recall and NDCG of the first 10 of all items that a user does not have, the share of the
    items that anybody is shown, and how much more popular those are than what users took."""
    lists = ranking.ranked(outputs, split, K)
    row = _row(lists, split, contract, K)
    return {
        "recall_at_10": row["recall"],
        "ndcg_at_10": row["ndcg"],
        "coverage_at_10": row["coverage"],
        "popularity_lift": _popularity(lists, contract) / _popularity(split["target"], contract),
    }


def details(outputs: Arrays, split: Arrays, contract: Contract) -> dict[str, Any]:
    """What lies behind the metrics: by length of the list, by what is known of the user, and for
    users of the training split against users never seen."""
    lists = ranking.ranked(outputs, split, max(TABLE_K))
    return {
        "by_k": {str(k): _row(lists, split, contract, k) for k in TABLE_K},
        "by_history": _groups(_by_history(split), lists, split, contract),
        "by_user": _groups(_by_user(split), lists, split, contract),
    }


def slice_scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """One number (n,) like the scores whose mean means something on any part of a split."""
    return scores(outputs, split)


def slices(split: Arrays, contract: Contract) -> dict[str, np.ndarray]:
    """Parts of a split that are looked at by themselves, bool (n,) like their scores: by how many
    items the model knows of a user, and whether training knows the user."""
    history = {f"{name} items": mask for name, mask in _by_history(split).items()}
    masks = {**history, **_by_user(split)}
    return {name: mask for name, mask in masks.items() if mask.sum() >= FEWEST}


def _by_history(split: Arrays) -> dict[str, np.ndarray]:
    known = ranking.lengths(split["history"])
    groups = {
        "1 to 4": (1, 4),
        "5 to 9": (5, 9),
        "10 to 19": (10, 19),
        "20 or more": (20, known.max(initial=0)),
    }
    return {name: (known >= low) & (known <= high) for name, (low, high) in groups.items()}


def _by_user(split: Arrays) -> dict[str, np.ndarray]:
    return {"never seen": ~split["seen"], "seen in training": split["seen"]}


def _groups(
    groups: dict[str, np.ndarray], lists: np.ndarray, split: Arrays, contract: Contract
) -> dict[str, dict[str, float]]:
    """The row of each group that has users."""
    return {
        name: _row(lists[rows], {key: array[rows] for key, array in split.items()}, contract, K)
        for name, rows in groups.items()
        if rows.any()
    }


def _row(lists: np.ndarray, split: Arrays, contract: Contract, k: int) -> dict[str, float]:
    hit, wanted = ranking.hits(lists, split), ranking.lengths(split["target"])
    return {
        "recall": float(ranking.recall(hit, wanted, k).mean()),
        "ndcg": float(ranking.ndcg(hit, wanted, k).mean()),
        "coverage": ranking.coverage(lists[:, :k], len(contract.items)),
        "users": len(lists),
    }


def _popularity(lists: np.ndarray, contract: Contract) -> float:
    """The mean share of training users who have an item of the lists."""
    return float(np.maximum(contract.shares[lists[lists > 0] - 1].mean(), 1e-12))
