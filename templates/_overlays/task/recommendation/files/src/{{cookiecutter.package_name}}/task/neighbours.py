"""Nearest users: score items by what the training users with the most similar lists have."""

import numpy as np
import torch
from torch import Tensor, nn

from ..arrays import Arrays
from . import linear, ranking

NEAREST = 30  # users whose lists count
MOST_USERS = 5000  # in memory
CHUNK_USERS = 256  # scored at a time


class Neighbours(nn.Module):
    """A user's items, 0 or 1 (batch, item) → the share of similar users with each (batch, item).

    Two users are as similar as the items that they share are rare: the sum of -log of the items'
    popularity, divided by a power of the other user's own sum. The lists of the nearest users are
    added up; their weights are a softmax of `sharpness` times the similarity relative to the
    largest, less the weight of the last, so that it does not matter which of equally similar users
    is the last. User-based nearest neighbours: Breese, Heckerman and Kadie, Empirical Analysis of
    Predictive Algorithms for Collaborative Filtering, UAI 1998 (with inverse user frequency).
    """

    lists: Tensor
    rarity: Tensor
    scale: Tensor

    def __init__(self, users: int, count: int, sharpness: float = 10.0) -> None:
        super().__init__()
        self.sharpness = sharpness
        users = min(users, MOST_USERS)
        self.register_buffer("lists", torch.zeros(users, count, dtype=torch.uint8))
        self.register_buffer("rarity", torch.zeros(count))
        self.register_buffer("scale", torch.zeros(users))

    def fit(self, train: Arrays, length_power: float = 0.3) -> None:
        """Remember the training users; of more than there is room for, evenly spaced ones."""
        everyone = linear.all_items(train)
        rows = np.linspace(0, len(everyone) - 1, len(self.lists)).round().astype(int)
        has = torch.from_numpy(ranking.membership(everyone[rows], self.lists.shape[1])).float()
        self.lists.copy_(has)
        self.rarity.copy_(-torch.log(has.mean(dim=0).clamp(min=1e-3, max=0.999)))
        self.scale.copy_((has @ self.rarity).clamp(min=1e-3) ** -length_power)

    def forward(self, has: Tensor) -> Tensor:
        lists = self.lists.float()  # whole numbers in files; exports convert them once
        similar = ((has * self.rarity) @ lists.T) * self.scale
        values, rows = similar.topk(min(NEAREST, len(lists)), dim=1)
        relative = values / values[:, :1].clamp(min=1e-6)
        weights = torch.softmax(self.sharpness * relative, dim=1)
        return ((weights - weights[:, -1:])[:, None] @ lists[rows])[:, 0]

    @torch.inference_mode()
    def scores(self, history: np.ndarray) -> np.ndarray:
        """Score every item, float32 (n, count), for users with these items."""
        chunks = np.split(history, range(CHUNK_USERS, len(history), CHUNK_USERS))
        rows = (ranking.membership(chunk, self.lists.shape[1]) for chunk in chunks)
        return np.concatenate([self(torch.from_numpy(each).float()).numpy() for each in rows])
