"""The network: an encoder over the tokens, mean and maximum of its vectors, a layer that
classifies."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..interfaces import Arrays, Stage
from . import diagnostics, masking
from .contract import Contract
from .encoder import Encoder, groups
from .pretrained import Pretrained
from .settings import Settings

ASKED = 512  # texts at once, outside of training


class Network(nn.Module):
    """`tokens` (batch, token) → `logits` (batch, class)."""

    def __init__(self, encoder: nn.Module, contract: Contract, width: int, dropout: float) -> None:
        super().__init__()
        self.encoder, self.pad, self.mask = encoder, contract.pad, contract.mask
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(2 * width, len(contract.labels))

    def forward(self, tokens: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self.answer(tokens)
        rows, parts = zip(*groups(tokens, self.pad), strict=True)
        logits = torch.cat([self.answer(part) for part in parts])
        return logits[torch.cat(rows).argsort()]

    def answer(self, tokens: Tensor) -> Tensor:
        """The logits of tokens that are of like length, or exported."""
        there = (tokens != self.pad).unsqueeze(2)
        x = self.encoder(tokens)
        mean = (x * there).sum(dim=1) / there.sum(dim=1)
        most = x.masked_fill(~there, -torch.inf).amax(dim=1)
        return self.head(self.drop(torch.cat([mean, most], dim=1)))

    def diagnose(self, dataset: Any) -> dict[str, Any]:
        """What to add to an evaluation's details."""
        return diagnostics.diagnose(self._ask, dataset)

    @torch.inference_mode()
    def _ask(self, tokens: np.ndarray) -> Arrays:
        self.eval()
        parts = torch.from_numpy(tokens).to(self.head.weight.device).split(ASKED)
        return {"logits": torch.cat([self(part) for part in parts]).cpu().numpy()}


class OwnNetwork(Network):
    """A network whose encoder can learn the language before it learns the classes."""

    def pretraining(self, settings: Settings, dataset: Any) -> Stage | None:
        """The stage to run first, or None."""
        # There are more texts than the pre-training will see twice: nothing to learn by heart.
        firm = settings.model.model_copy(update={"dropout": 0.0})
        return masking.stage(settings, dataset, lambda: Encoder(dataset.contract, firm))


def build(settings: Settings, contract: Contract) -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator."""
    wanted = settings.model
    if wanted.pretrained is not None:
        encoder = Pretrained(contract, wanted)
        return Network(encoder, contract, encoder.width, wanted.dropout)
    return OwnNetwork(Encoder(contract, wanted), contract, wanted.width, wanted.dropout)


def describe(network: nn.Module) -> str:
    """One sentence for the report."""
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"A transformer encoder with {count:,} parameters."
