"""The network: an encoder, mean and maximum of its vectors over the tokens, a linear layer."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..arrays import Arrays
from ..interfaces import Stage
from . import diagnostics, masking
from .calibration import TemperatureScaling
from .contract import Contract
from .encoder import Encoder, group_by_length
from .pretrained import Pretrained
from .settings import Settings

DIAGNOSTICS_BATCH = 512  # texts


class Network(TemperatureScaling):
    """`tokens` (batch, token) → `logits` (batch, class)."""

    def __init__(self, encoder: nn.Module, contract: Contract, width: int, dropout: float) -> None:
        super().__init__()
        self.encoder, self.pad, self.mask = encoder, contract.pad, contract.mask
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(2 * width, len(contract.labels))

    def forward(self, tokens: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self.classify(tokens)
        rows, groups = zip(*group_by_length(tokens, self.pad), strict=True)
        logits = torch.cat([self.classify(group) for group in groups])
        return logits[torch.cat(rows).argsort()]

    def classify(self, tokens: Tensor) -> Tensor:
        """Return the logits (text, class) of one group of texts."""
        is_token = (tokens != self.pad).unsqueeze(2)
        x = self.encoder(tokens)
        mean = (x * is_token).sum(dim=1) / is_token.sum(dim=1)
        largest = x.masked_fill(~is_token, -torch.inf).amax(dim=1)
        return self.head(self.drop(torch.cat([mean, largest], dim=1))) / self.temperature

    def diagnose(self, dataset: Any) -> dict[str, Any]:
        """Return the metrics on out-of-domain data and the weights of words."""
        return diagnostics.diagnose(self._predict, dataset)

    @torch.inference_mode()
    def _predict(self, tokens: np.ndarray) -> Arrays:
        self.eval()
        batches = torch.from_numpy(tokens).to(self.head.weight.device).split(DIAGNOSTICS_BATCH)
        return {"logits": torch.cat([self(batch) for batch in batches]).cpu().numpy()}


class OwnNetwork(Network):
    """A network whose encoder can be pre-trained on unlabelled texts."""

    def pretraining(self, settings: Settings, dataset: Any) -> Stage | None:
        """Return the pre-training stage, or None if it is switched off."""
        # No dropout: with so many texts and so few epochs nothing overfits.
        no_dropout = settings.model.model_copy(update={"dropout": 0.0})
        return masking.stage(settings, dataset, lambda: Encoder(dataset.contract, no_dropout))


def build(settings: Settings, contract: Contract) -> nn.Module:
    """Build a network with a pretrained encoder, or random weights from torch's generator."""
    shape = settings.model
    if shape.pretrained is not None:
        encoder = Pretrained(contract, shape)
        return Network(encoder, contract, encoder.width, shape.dropout)
    return OwnNetwork(Encoder(contract, shape), contract, shape.width, shape.dropout)


def describe(network: nn.Module) -> str:
    """Describe the network in one sentence for the report."""
    count = sum(parameter.numel() for parameter in network.parameters())
    encoder = getattr(network, "encoder", network)
    if isinstance(encoder, Pretrained):
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return (
            f"{type(encoder.body).__name__} from {encoder.name}, pretrained, with {count:,} "
            f"parameters, of which {trained:,} were trained here."
        )
    if isinstance(encoder, Encoder):
        return f"A transformer encoder with {count:,} parameters."
    return f"A network ({type(network).__name__}) with {count:,} parameters."
