"""Pre-training by masked language modelling: predict masked words from those around them.

Devlin et al., BERT, https://arxiv.org/abs/1810.04805
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..interfaces import Metrics, Stage
from .contract import Contract
from .encoder import Encoder, group_by_length
from .settings import Settings

MAX_VALIDATION = 2000  # validation texts that epochs are compared on


class MaskedLanguageModel(nn.Module):
    """An encoder, and a head that predicts words with the embedding's weights."""

    def __init__(self, encoder: Encoder, frequency: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Linear(encoder.width, encoder.width), nn.GELU(), nn.LayerNorm(encoder.width)
        )
        self.bias = nn.Parameter(frequency.log())  # start with the words' frequencies

    def forward(self, tokens: Tensor, selected: Tensor) -> Tensor:
        """Return the logits (n, vocabulary) of the n tokens that `selected` (text, token) marks."""
        x = self.head(self.encoder(tokens)[selected])
        return functional.linear(x, self.encoder.word.weight, self.bias)


def stage(settings: Settings, dataset: Any, encoder: Callable[[], Encoder]) -> Stage | None:
    """Define the pre-training on the dataset's `unlabelled`; None if it is switched off."""
    pretrain, contract = settings.pretrain, dataset.contract
    if not pretrain.epochs:
        return None
    epochs = {"epochs": pretrain.epochs, "patience": pretrain.epochs}
    steps = {"batch_size": pretrain.batch_size, "lr": pretrain.lr}
    train = settings.train.model_copy(update={**epochs, **steps})
    counts = np.bincount(dataset.unlabelled.ravel(), minlength=contract.vocabulary) + 1.0
    frequency = torch.tensor(counts / counts.sum(), dtype=torch.float32)
    # The same words are masked each time, so that epochs are comparable.
    held_out = torch.from_numpy(dataset.validation["tokens"][:MAX_VALIDATION])
    fixed = mask(held_out, contract, pretrain.masked, torch.Generator().manual_seed(0))

    def loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        tokens = batch["tokens"]
        masked = mask(tokens, contract, pretrain.masked)
        total, _, count = masked_loss(network, contract.pad, tokens, *masked)
        return total / count

    @torch.inference_mode()
    def measure(network: nn.Module) -> Metrics:
        network.eval()
        device = next(network.parameters()).device
        inputs = (tensor.to(device) for tensor in (held_out, *fixed))
        total, correct, count = masked_loss(network, contract.pad, *inputs)
        return {"masked_loss": float(total / count), "masked_accuracy": float(correct / count)}

    return Stage(
        name="pretraining",
        train=train,
        data={"tokens": dataset.unlabelled},
        build=lambda: MaskedLanguageModel(encoder(), frequency),
        loss=loss,
        measure=measure,
        primary_metric="masked_loss",
        higher_is_better=False,
    )


def mask(
    tokens: Tensor, contract: Contract, share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Select a random `share` of the words to predict; return masked tokens and the selection.

    Both are (text, token). Of the selected words 80 % are masked, 10 % replaced by a random word
    and 10 % left as they are.
    """
    uniform = torch.rand(tokens.shape, generator=generator).to(tokens.device)
    first, end = contract.mask or 0, contract.vocabulary  # words come after the mask
    other = torch.randint(first + 1, end, tokens.shape, generator=generator).to(tokens.device)
    selected = (uniform < share) & (tokens > first)
    masked = torch.where(selected & (uniform < 0.8 * share), first, tokens)
    return torch.where(selected & (uniform >= 0.9 * share), other, masked), selected


def masked_loss(
    network: nn.Module, pad: int, tokens: Tensor, masked: Tensor, selected: Tensor
) -> tuple[Tensor, Tensor, int]:
    """Return the summed loss in nats, the number of correct predictions and of all predictions."""
    total, correct = torch.zeros((), device=tokens.device), torch.zeros((), device=tokens.device)
    for rows, group in group_by_length(tokens, pad):
        width = group.shape[1]
        group_selected = selected[rows, :width]
        logits, target = network(masked[rows, :width], group_selected), group[group_selected]
        total = total + functional.cross_entropy(logits, target, reduction="sum")
        correct = correct + (logits.argmax(dim=1) == target).sum()
    return total, correct, max(int(selected.sum()), 1)
