"""The network: an encoder, mean and maximum of its vectors over the tokens, a linear layer.

After training, a logistic regression on n-grams is blended in, with a weight from validation.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..arrays import Arrays
from ..interfaces import Stage
from . import diagnostics, masking
from .calibration import TemperatureScaling, fit_temperature
from .contract import Contract
from .encoder import Encoder, group_by_length
from .ngrams import NgramClassifier
from .pretrained import Pretrained
from .settings import ModelSettings, Settings

PREDICTED = 256  # texts at once
# Weights of the n-grams' logits to choose from. Never 1: the encoder would be trained and served
# for nothing, and a baseline already says how good the n-grams are alone.
BLENDS = np.linspace(0, 0.9, 19)


class Network(TemperatureScaling):
    """`tokens` (batch, token) → `logits` (batch, class)."""

    blend: Tensor

    def __init__(
        self, encoder: nn.Module, contract: Contract, width: int, settings: ModelSettings
    ) -> None:
        super().__init__()
        self.encoder, self.pad, self.mask = encoder, contract.pad, contract.mask
        self.drop = nn.Dropout(settings.dropout)
        self.head = nn.Linear(2 * width, len(contract.labels))
        self.ngrams = NgramClassifier(contract, settings.ngrams) if settings.ngrams else None
        self.register_buffer("blend", torch.zeros(()), persistent=False)  # fitted by `calibrate`

    def prepare(self, train: Arrays, validation: Arrays) -> None:
        """Fit the logistic regression on n-grams if it is to be blended in."""
        if self.ngrams is not None:
            self.ngrams.fit(train["tokens"], train["label"])

    def calibrate(self, outputs: Arrays, split: Arrays) -> None:
        """Blend in the n-grams' logits with the weight of the lowest log loss on `split`, then fit
        the temperature. `outputs` are those of a network that is not calibrated."""
        if self.ngrams is not None:
            logits, linear = outputs["logits"], self._logits(self.ngrams, split["tokens"])
            mixed = {share: logits + share * (linear - logits) for share in BLENDS.tolist()}
            best = min(mixed, key=lambda share: fit_temperature(mixed[share], split["label"])[1])
            self.blend.fill_(best)
            outputs = {"logits": mixed[best]}
        super().calibrate(outputs, split)

    def ablations(self) -> Mapping[str, nn.Module]:
        """Return the network without n-grams, not calibrated, if they are blended in."""
        if self.ngrams is None:
            return {}
        alone = copy.deepcopy(self)
        alone.ngrams = None
        alone.temperature.fill_(1)
        return {"Network without n-grams": alone}

    def forward(self, tokens: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            logits = self.classify(tokens)
        else:
            rows, groups = zip(*group_by_length(tokens, self.pad), strict=True)
            logits = torch.cat([self.classify(group) for group in groups])
            logits = logits[torch.cat(rows).argsort()]
        if self.ngrams is not None and not self.training:
            logits = logits + self.blend * (self.ngrams(tokens) - logits)
        return logits / self.temperature

    def classify(self, tokens: Tensor) -> Tensor:
        """Return the encoder's logits (text, class) of one group of texts."""
        is_token = (tokens != self.pad).unsqueeze(2)
        x = self.encoder(tokens)
        mean = (x * is_token).sum(dim=1) / is_token.sum(dim=1)
        largest = x.masked_fill(~is_token, -torch.inf).amax(dim=1)
        return self.head(self.drop(torch.cat([mean, largest], dim=1)))

    def diagnose(self, dataset: Any) -> dict[str, Any]:
        """Return the metrics on out-of-domain data and the weights of words."""
        return diagnostics.diagnose(self._predict, dataset)

    def _predict(self, tokens: np.ndarray) -> Arrays:
        return {"logits": self._logits(self, tokens)}

    @torch.inference_mode()
    def _logits(self, part: nn.Module, tokens: np.ndarray) -> np.ndarray:
        self.eval()
        batches = torch.from_numpy(tokens).to(self.head.weight.device).split(PREDICTED)
        return torch.cat([part(batch) for batch in batches]).cpu().numpy()


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
        return Network(encoder, contract, encoder.width, shape)
    return OwnNetwork(Encoder(contract, shape), contract, shape.width, shape)


def describe(network: nn.Module) -> str:
    """Describe the network in one sentence for the report."""
    count = sum(parameter.numel() for parameter in network.parameters())
    if not isinstance(network, Network):
        return f"A network ({type(network).__name__}) with {count:,} parameters."
    encoder = network.encoder
    if isinstance(encoder, Pretrained):
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        sentence = (
            f"{type(encoder.body).__name__} from {encoder.name}, pretrained, with {count:,} "
            f"parameters, of which {trained:,} were trained here"
        )
    else:
        sentence = f"A transformer encoder with {count:,} parameters"
    if share := float(network.blend):
        sentence += f", blended with logistic regression on n-grams of tokens (weight {share:.2f})"
    return f"{sentence}."
