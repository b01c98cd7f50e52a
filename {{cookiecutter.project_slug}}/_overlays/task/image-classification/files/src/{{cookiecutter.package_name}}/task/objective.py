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
from .settings import ObjectiveSettings, Settings

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

PRIMARY_METRIC = "accuracy"  # the metric by which epochs, seeds and models are compared
HIGHER_IS_BETTER = True
BLOCK_LENGTH = 1  # test examples in a row that belong together and are resampled together


def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The loss of a training batch: cross entropy with smoothed labels on augmented images."""
    logits = network(augment(batch["image"], settings.objective))
    smoothing = settings.objective.label_smoothing
    return functional.cross_entropy(logits, batch["label"], label_smoothing=smoothing)


def augment(image: Tensor, settings: ObjectiveSettings) -> Tensor:
    """Each image (batch, channel, row, column) rotated, scaled and shifted a little at random."""
    count, _, height, width = image.shape
    draw = torch.rand(4, count, device=image.device) * 2 - 1  # each uniform in -1..1
    angle = torch.deg2rad(draw[0] * settings.rotate)
    factor = 1 + draw[1] * settings.scale
    cosine, sine = factor * torch.cos(angle), factor * torch.sin(angle)
    right, down = 2 * draw[2] * settings.shift / width, 2 * draw[3] * settings.shift / height
    rows = [cosine, -sine, right, sine, cosine, down]
    affine = torch.stack(rows, dim=1).view(count, 2, 3)
    grid = functional.affine_grid(affine, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, align_corners=False)


def scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """One number (n,) per example; their mean is the metric that decides."""
    return classes.hits(outputs, split)


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
