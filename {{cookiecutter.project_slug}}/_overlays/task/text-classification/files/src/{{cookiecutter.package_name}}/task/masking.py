"""Pre-training: guess the words that are masked, from those around them.

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
from .encoder import Encoder, groups
from .settings import Settings

MEASURED = 2000  # validation texts that epochs are compared on


class Masked(nn.Module):
    """An encoder, and what makes words of its vectors with the embedding's own weights."""

    def __init__(self, encoder: Encoder, frequency: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.guess = nn.Sequential(
            nn.Linear(encoder.width, encoder.width), nn.GELU(), nn.LayerNorm(encoder.width)
        )
        self.bias = nn.Parameter(frequency.log())  # nothing better is known at first

    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """The logits (n, vocabulary) of the n tokens that `chosen` (text, token) marks."""
        x = self.guess(self.encoder(tokens)[chosen])
        return functional.linear(x, self.encoder.word.weight, self.bias)


def stage(settings: Settings, dataset: Any, encoder: Callable[[], Encoder]) -> Stage | None:
    """The pre-training that the settings ask for, on the dataset's `unlabelled`; None for none."""
    wanted, contract = settings.pretrain, dataset.contract
    if not wanted.epochs:
        return None
    train = settings.train.model_copy(
        update={
            "epochs": wanted.epochs,
            "patience": wanted.epochs,
            "batch_size": wanted.batch_size,
            "lr": wanted.lr,
        }
    )
    counts = np.bincount(dataset.unlabelled.ravel(), minlength=contract.vocabulary) + 1.0
    frequency = torch.tensor(counts / counts.sum(), dtype=torch.float32)
    # The same words are masked each time, so that epochs can be compared.
    held_out = torch.from_numpy(dataset.validation["tokens"][:MEASURED])
    fixed = mask(held_out, contract, wanted.masked, torch.Generator().manual_seed(0))

    def loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        tokens = batch["tokens"]
        total, _, count = guess(
            network, contract.pad, tokens, *mask(tokens, contract, wanted.masked)
        )
        return total / count

    @torch.inference_mode()
    def measure(network: nn.Module) -> Metrics:
        network.eval()
        device = next(network.parameters()).device
        inputs = (tensor.to(device) for tensor in (held_out, *fixed))
        total, right, count = guess(network, contract.pad, *inputs)
        return {"masked_loss": float(total / count), "masked_accuracy": float(right / count)}

    return Stage(
        name="pretraining",
        train=train,
        data={"tokens": dataset.unlabelled},
        build=lambda: Masked(encoder(), frequency),
        loss=loss,
        measure=measure,
        decides="masked_loss",
        higher_is_better=False,
    )


def mask(
    tokens: Tensor, contract: Contract, share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """`tokens` (text, token) with a `share` of the words to be guessed, and which they are.

    Of these four fifths are masked, a tenth replaced by any word and a tenth left as they are.
    """
    draw = torch.rand(tokens.shape, generator=generator).to(tokens.device)
    first, end = contract.mask or 0, contract.vocabulary  # words come after the mask
    other = torch.randint(first + 1, end, tokens.shape, generator=generator).to(tokens.device)
    chosen = (draw < share) & (tokens > first)
    masked = torch.where(chosen & (draw < 0.8 * share), first, tokens)
    return torch.where(chosen & (draw >= 0.9 * share), other, masked), chosen


def guess(
    network: nn.Module, pad: int, tokens: Tensor, masked: Tensor, chosen: Tensor
) -> tuple[Tensor, Tensor, int]:
    """The sum of the losses in nats, the number of right guesses, the number of guesses."""
    total, right = torch.zeros((), device=tokens.device), torch.zeros((), device=tokens.device)
    for rows, part in groups(tokens, pad):
        width = part.shape[1]
        here = chosen[rows, :width]
        logits, target = network(masked[rows, :width], here), part[here]
        total = total + functional.cross_entropy(logits, target, reduction="sum")
        right = right + (logits.argmax(dim=1) == target).sum()
    return total, right, max(int(chosen.sum()), 1)
