"""The loss and the metrics."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..interfaces import Arrays
from .class_metrics import METRICS, details, f1_scores, hits, metrics, slices
from .settings import Settings

__all__ = [
    "BLOCK_LENGTH",
    "HIGHER_IS_BETTER",
    "METRICS",
    "PRIMARY_METRIC",
    "details",
    "loss",
    "metrics",
    "scores",
    "slice_scores",
    "slices",
]

PRIMARY_METRIC = "macro_f1"  # the metric by which epochs, seeds and models are compared
HIGHER_IS_BETTER = True
# Neighbouring test examples that are resampled together: a source file documents about so many
# parameters, written by one author.
BLOCK_LENGTH = 16


def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Compute the cross entropy with smoothed labels on texts with some tokens hidden."""
    tokens = batch["tokens"]
    if settings.objective.hidden:
        tokens = hide(network, tokens, settings.objective.hidden)
    smoothing = settings.objective.label_smoothing
    return functional.cross_entropy(network(tokens), batch["label"], label_smoothing=smoothing)


def hide(network: Any, tokens: Tensor, share: float) -> Tensor:
    """Replace a random `share` of `tokens` (text, token) with the mask, as augmentation.

    Tokens stay as they are if the tokenizer has no mask token.
    """
    if network.mask is None:
        return tokens
    uniform = torch.rand(tokens.shape).to(tokens.device)
    return torch.where((uniform < share) & (tokens != network.pad), network.mask, tokens)


def scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """Score examples (n,); their mean is the macro F1."""
    return f1_scores(outputs, split)


def slice_scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """Score examples (n,): 1 if correct, else 0, for F1 says nothing about a single class."""
    return hits(outputs, split)
