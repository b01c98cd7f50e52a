"""What training minimises and what counts in the end."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Arrays, Contract
from .settings import Objective, Settings

DECIDES = "accuracy"  # the metric by which epochs, seeds and models are compared
HIGHER_IS_BETTER = True


class Shown(NamedTuple):
    """How a metric is written in tables: its value times `scale`, with `digits` decimals."""

    title: str
    scale: float
    digits: int


SHOWN = {"accuracy": Shown("Accuracy, %", 100, 1), "macro_f1": Shown("Macro F1, %", 100, 1)}


def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The loss of a training batch: cross entropy with smoothed labels on augmented images."""
    logits = network(augment(batch["image"], settings.objective))
    smoothing = settings.objective.label_smoothing
    return functional.cross_entropy(logits, batch["label"], label_smoothing=smoothing)


def augment(image: Tensor, settings: Objective) -> Tensor:
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


def answers(outputs: Arrays) -> np.ndarray:
    """The class (n,) chosen for each example; baselines give it as `label`, networks by logits."""
    return outputs["label"] if "label" in outputs else outputs["logits"].argmax(axis=1)


def scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """One number (n,) per example; their mean is the metric that decides."""
    return (answers(outputs) == split["label"]).astype(np.float64)


def metrics(outputs: Arrays, split: Arrays, contract: Contract) -> dict[str, float]:
    """The metrics of a split."""
    table = confusion(outputs, split, contract)
    found = {
        "accuracy": float(scores(outputs, split).mean()),
        "macro_f1": float(np.mean([row["f1"] for row in per_class(table, contract).values()])),
    }
    if "logits" in outputs:
        logits = outputs["logits"].astype(np.float64)
        top = logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        chosen = logits[np.arange(len(logits)), split["label"]]
        found["log_loss"] = float((log_sum - chosen).mean())
    return found


def details(outputs: Arrays, split: Arrays, contract: Contract) -> dict[str, Any]:
    """What lies behind the metrics: a table per class and the confusion matrix."""
    table = confusion(outputs, split, contract)
    return {"per_class": per_class(table, contract), "confusion": table.tolist()}


def confusion(outputs: Arrays, split: Arrays, contract: Contract) -> np.ndarray:
    """Counts (true class, chosen class)."""
    count = len(contract.labels)
    cells = split["label"] * count + answers(outputs)
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def per_class(table: np.ndarray, contract: Contract) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and number of examples of each class.

    A class that is never chosen or never there counts 0, as in scikit-learn's default.
    """
    hits, chosen, there = table.diagonal(), table.sum(axis=0), table.sum(axis=1)
    return {
        name: {
            "precision": float(hits[i] / max(chosen[i], 1)),
            "recall": float(hits[i] / max(there[i], 1)),
            "f1": float(2 * hits[i] / max(chosen[i] + there[i], 1)),
            "examples": int(there[i]),
        }
        for i, name in enumerate(contract.labels)
    }
