"""Make a classifier's probabilities match how often it is right."""

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor, nn

from ..arrays import Arrays

LOG_BOUND = math.log(10)  # of the temperature, both ways


class TemperatureScaling(nn.Module):
    """A network that divides its logits by `temperature`: 1 in training, then fitted on validation.

    Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599. The
    order of the classes does not change. The buffer is not part of the weights' file.
    """

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()), persistent=False)

    def calibrate(self, outputs: Arrays, split: Arrays) -> None:
        """Fit the temperature to `logits` (n, class) and `label` (n,)."""
        self.temperature.mul_(fit_temperature(outputs["logits"], split["label"])[0])


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the temperature of the lowest log loss for `logits` (n, class), and this loss."""
    logits, count = logits.astype(np.float64), len(labels)
    # Platt's targets: where validation has no error, the temperature must not become 0.
    missed = 1 / (count + 2)

    def loss(log_temperature: float) -> float:
        chances = log_softmax(logits / math.exp(log_temperature), axis=1)
        actual = chances[np.arange(count), labels]
        return -float((1 - missed) * actual.mean() + missed * chances.mean())

    found: Any = minimize_scalar(loss, bounds=(-LOG_BOUND, LOG_BOUND), method="bounded")
    return math.exp(found.x), float(found.fun)
