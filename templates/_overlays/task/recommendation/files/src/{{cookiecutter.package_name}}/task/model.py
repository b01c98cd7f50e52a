"""The network: from a user's items to one vector, and from the vector to a score per item.

It has no per-user parameters, so it works for new users without training.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arrays import Arrays
from . import linear
from .contract import Contract
from .settings import Settings

INITIAL_STD = 0.02  # of the item vectors; 0.1 was worse


class Network(nn.Module):
    """`history` (batch, length), item numbers from 1, padded with 0 → `scores` (batch, item)."""

    weights: Tensor

    def __init__(self, count: int, width: int, dropout: float, blend: float) -> None:
        super().__init__()
        self.blend = blend
        # One table for inputs and outputs: half the parameters, and better than two tables.
        self.table = nn.Parameter(torch.randn(count, width) * INITIAL_STD)
        self.bias = nn.Parameter(torch.zeros(count))
        self.layer = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        if blend:
            self.register_buffer("weights", torch.zeros(count, count))

    def forward(self, history: Tensor) -> Tensor:
        batch, count = history.shape[0], self.table.shape[0]
        # Expand the lists to a (batch, item) matrix: sums over items are products with it.
        has = torch.zeros(batch, count + 1, device=history.device)
        has = has.scatter(1, history.long(), 1.0)[:, 1:]
        norm = has.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        user = self.dropout(torch.tanh(has / norm @ self.table))
        user = user + self.dropout(functional.gelu(self.layer(user)))
        scores = user @ self.table.T + self.bias
        if self.training:
            return scores
        if self.blend:
            scores = scores + self.blend * (has @ self.weights)
        # The user's items rank last; by a finite number, so that exports can be compared.
        lowest = scores.amin(dim=1, keepdim=True) - 1
        return torch.where(has > 0, lowest, scores)

    def prepare(self, train: Arrays, validation: Arrays) -> None:
        """Compute EDLAE's weights if they are blended in."""
        if self.blend:
            pairs = linear.pair_counts(linear.all_items(train), len(self.bias))
            self.weights.copy_(torch.from_numpy(linear.tuned_edlae(pairs, validation)))

    def ablations(self) -> dict[str, nn.Module]:
        """Return the network without EDLAE's scores, if they are blended in."""
        alone = copy.copy(self)  # shares the parameters
        alone.blend = 0.0
        return {"Network without EDLAE": alone} if self.blend else {}


def build(settings: Settings, contract: Contract) -> nn.Module:
    """Build a network with random weights from torch's global generator."""
    shape = settings.model
    return Network(len(contract.items), shape.width, shape.dropout, shape.blend)


def describe(network: nn.Module) -> str:
    """Describe the network in one sentence for the report."""
    assert isinstance(network, Network), "made by build"
    count = sum(math.prod(parameter.shape) for parameter in network.parameters())
    items, width = network.table.shape
    blend = f", blended with EDLAE (weight {network.blend:g})" if network.blend else ""
    return (
        f"A network with {width} numbers for each of {items:,} items, one hidden layer and "
        f"{count:,} parameters{blend}."
    )
