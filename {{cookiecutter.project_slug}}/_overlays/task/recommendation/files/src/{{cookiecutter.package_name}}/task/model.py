"""The network: from what a user has to one vector, and from the vector to a score of every item.

No parameter belongs to a user, so one who was never seen is served without any training.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..interfaces import Arrays
from . import linear
from .contract import Contract
from .settings import Settings

INITIAL = 0.02  # standard deviation of the item vectors; five times as much was worse


class Network(nn.Module):
    """`history` (batch, length), items from 1 and 0 to fill up → `scores` (batch, item)."""

    weights: Tensor

    def __init__(self, count: int, width: int, dropout: float, blend: float) -> None:
        super().__init__()
        self.blend = blend
        # One table for both sides: half the parameters, and better than two.
        self.table = nn.Parameter(torch.randn(count, width) * INITIAL)
        self.bias = nn.Parameter(torch.zeros(count))
        self.layer = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        if blend:
            self.register_buffer("weights", torch.zeros(count, count))

    def forward(self, history: Tensor) -> Tensor:
        batch, count = history.shape[0], self.table.shape[0]
        # Compact lists travel and are stored; the sums over them are a product with this matrix.
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
        # What the user has ranks below all else; a finite number, so that exports can be compared.
        lowest = scores.amin(dim=1, keepdim=True) - 1
        return torch.where(has > 0, lowest, scores)

    def prepare(self, train: Arrays, validation: Arrays) -> None:
        """Solve for the weights of EDLAE, if they are to be blended in."""
        if self.blend:
            pairs = linear.together(linear.everything(train), len(self.bias))
            solved = linear.tuned_edlae(pairs, validation)
            self.weights.copy_(torch.from_numpy(solved))


def build(settings: Settings, contract: Contract) -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator."""
    own = settings.model
    return Network(len(contract.items), own.width, own.dropout, own.blend)


def describe(network: nn.Module) -> str:
    """One sentence for the report."""
    assert isinstance(network, Network), "made by build"
    count = sum(math.prod(parameter.shape) for parameter in network.parameters())
    items, width = network.table.shape
    blend = f", blended with EDLAE (weight {network.blend:g})" if network.blend else ""
    return (
        f"A network with {width} numbers for each of {items:,} items, one hidden layer and "
        f"{count:,} parameters{blend}."
    )
