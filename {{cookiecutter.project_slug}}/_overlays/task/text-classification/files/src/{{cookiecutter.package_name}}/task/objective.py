"""What training minimises and what counts in the end."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..interfaces import Arrays, Metrics
from . import classes
from .classes import METRICS
from .contract import Contract
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
# Test examples in a row that belong together and are resampled together: a source file documents
# about so many parameters, in one hand.
BLOCK_LENGTH = 16


def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The loss of a training batch: cross entropy with smoothed labels, some tokens hidden."""
    wanted, tokens = settings.objective, batch["tokens"]
    if wanted.hidden:
        tokens = hide(network, tokens, wanted.hidden)
    logits = network(tokens)
    return functional.cross_entropy(logits, batch["label"], label_smoothing=wanted.label_smoothing)


def hide(network: Any, tokens: Tensor, share: float) -> Tensor:
    """`tokens` (text, token) with a random `share` replaced by the mask, so that the network does
    not rest on single words; one without a mask token reads them as they are."""
    if network.mask is None:
        return tokens
    draw = torch.rand(tokens.shape).to(tokens.device)
    return torch.where((draw < share) & (tokens != network.pad), network.mask, tokens)


def scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """One number (n,) per example; their mean is the metric that decides."""
    return classes.f1_scores(outputs, split)


def slice_scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """One number (n,) per example whose mean means something on any part of a split: 1 if right."""
    return classes.hits(outputs, split)


def slices(split: Arrays, contract: Contract) -> dict[str, np.ndarray]:
    """Parts of a split that are looked at by themselves, bool (n,) like the scores: the classes."""
    return classes.slices(split, contract.labels)


def metrics(outputs: Arrays, split: Arrays, contract: Contract) -> Metrics:
    """The metrics of a split."""
    return classes.metrics(outputs, split, contract.labels)


def details(outputs: Arrays, split: Arrays, contract: Contract) -> dict[str, Any]:
    """What lies behind the metrics, for the report."""
    return classes.details(outputs, split, contract.labels)
