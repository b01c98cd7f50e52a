"""The loss and the metrics."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .class_metrics import METRICS as METRICS
from .class_metrics import PROPER_SCORE as PROPER_SCORE
from .class_metrics import details as details
from .class_metrics import f1_scores, hits
from .class_metrics import metrics as metrics
from .class_metrics import slices as slices
from .settings import Settings

PRIMARY_METRIC = "macro_f1"
HIGHER_IS_BETTER = True
BLOCK_LENGTH = 16  # a source file documents about so many parameters, written by one author

scores = f1_scores  # their mean is the macro F1
slice_scores = hits  # F1 says nothing about a single class


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
