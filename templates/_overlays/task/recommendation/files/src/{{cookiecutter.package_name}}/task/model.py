"""The network: from a user's items to one vector, and from the vector to a score per item.

It has no per-user parameters, so it works for new users without training. Scores of two models in
closed form can be added: EDLAE's, and what the most similar training users have.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arrays import Arrays
from . import linear
from .contract import Contract
from .neighbours import Neighbours
from .settings import ModelSettings, Settings

INITIAL_STD = 0.02  # of the item vectors; 0.1 was worse


class Autoencoder(nn.Module):
    """Scores every item (batch, item) by a user's items, 0 or 1 (batch, item)."""

    def __init__(self, count: int, width: int, dropout: float) -> None:
        super().__init__()
        # One table for inputs and outputs: half the parameters, and better than two tables.
        self.table = nn.Parameter(torch.randn(count, width) * INITIAL_STD)
        self.bias = nn.Parameter(torch.zeros(count))
        self.layer = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def score(self, has: Tensor) -> Tensor:
        norm = has.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        user = self.dropout(torch.tanh(has / norm @ self.table))
        user = user + self.dropout(functional.gelu(self.layer(user)))
        return user @ self.table.T + self.bias


class Network(Autoencoder):
    """`history` (batch, length), item numbers from 1, padded with 0 → `scores` (batch, item).

    The mean of `members` autoencoders, of which this is the first. In training each scores its own
    share of the batch, for which the loss repeats the batch.
    """

    weights: Tensor

    def __init__(self, count: int, users: int, shape: ModelSettings) -> None:
        super().__init__(count, shape.width, shape.dropout)
        self.blend, self.neighbours = shape.blend, shape.neighbours
        others = (Autoencoder(count, shape.width, shape.dropout) for _ in range(shape.members - 1))
        self.others = nn.ModuleList(others)
        if self.blend:
            self.register_buffer("weights", torch.zeros(count, count))
        if self.neighbours:
            self.memory = Neighbours(users, count)

    @property
    def members(self) -> list[Autoencoder]:
        return [self, *self.others]  # pyright: ignore[reportReturnType]

    def forward(self, history: Tensor) -> Tensor:
        batch, count = history.shape[0], self.table.shape[0]
        # Expand the lists to a (batch, item) matrix: sums over items are products with it.
        has = torch.zeros(batch, count + 1, device=history.device)
        has = has.scatter(1, history.long(), 1.0)[:, 1:]
        if self.training:
            shares = zip(self.members, has.chunk(len(self.members)), strict=False)
            return torch.cat([member.score(share) for member, share in shares])
        scores = torch.stack([member.score(has) for member in self.members]).mean(dim=0)
        if self.blend:
            scores = scores + self.blend * (has @ self.weights)
        if self.neighbours:
            scores = scores + self.neighbours * self.memory(has)
        # The user's items rank last; by a finite number, so that exports can be compared.
        lowest = scores.amin(dim=1, keepdim=True) - 1
        return torch.where(has > 0, lowest, scores)

    def prepare(self, train: Arrays, validation: Arrays) -> None:
        """Fit the models whose scores are added."""
        if self.blend:
            pairs = linear.pair_counts(linear.all_items(train), len(self.bias))
            self.weights.copy_(torch.from_numpy(linear.tuned_edlae(pairs, validation)))
        if self.neighbours:
            self.memory.fit(train)

    def ablations(self) -> dict[str, nn.Module]:
        """Return the network without the scores that are added to it, each and all."""
        added = {"without EDLAE": "blend", "without neighbours": "neighbours"}
        parts = {name: [key] for name, key in added.items() if getattr(self, key)}
        if len(parts) > 1:
            parts["alone"] = list(added.values())
        networks: dict[str, nn.Module] = {}
        for name, keys in parts.items():
            networks[f"Network {name}"] = reduced = copy.copy(self)  # shares the parameters
            vars(reduced).update(dict.fromkeys(keys, 0.0))
        return networks


def build(settings: Settings, contract: Contract) -> nn.Module:
    """Build a network with random weights from torch's global generator."""
    return Network(len(contract.items), contract.users, settings.model)


def describe(network: nn.Module) -> str:
    """Describe the network in one sentence for the report."""
    assert isinstance(network, Network), "made by build"
    count = sum(math.prod(parameter.shape) for parameter in network.parameters())
    items, width = network.table.shape
    members = len(network.members)
    mean = f"The mean of {members} networks, each" if members > 1 else "A network"
    added = [f"EDLAE (weight {network.blend:g})"] if network.blend else []
    if network.neighbours:
        added.append(f"the nearest of {len(network.memory.lists):,} users ({network.neighbours:g})")
    return (
        f"{mean} with {width} numbers for each of {items:,} items and one hidden layer; "
        f"{count:,} parameters{', blended with ' if added else ''}{' and '.join(added)}."
    )
