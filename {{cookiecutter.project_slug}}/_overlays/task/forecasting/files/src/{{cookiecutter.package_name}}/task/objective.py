"""What training minimises and what counts in the end.

Everything is measured on scaled values, in which 1 is the mean change from season to season in
training: a mean absolute error is then a MASE as it stands (Hyndman and Koehler, Another look at
measures of forecast accuracy, International Journal of Forecasting 22, 2006).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..interfaces import Arrays, MetricFormat, Metrics
from . import clock
from .contract import QUANTILES, Contract
from .settings import Settings

PRIMARY_METRIC = "mase"  # the metric by which epochs, seeds and models are compared
HIGHER_IS_BETTER = False
# Test windows in a row that belong together and are resampled together. Eight windows begin within
# one horizon, so these reach over three horizons: neighbours share steps and weather.
BLOCK_LENGTH = 24
FEWEST = 20  # origins of a slice: of fewer no mean says much

METRICS = {
    "mase": MetricFormat("MASE", 1, 3),
    "smape": MetricFormat("sMAPE, %", 1, 2),
    "pinball": MetricFormat("Pinball loss", 1, 3),
    "coverage": MetricFormat("80 % interval covers, %", 100, 1),
}


def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The mean pinball loss of a training batch over steps and quantiles.

    Koenker and Bassett, Regression Quantiles, Econometrica 46 (1978).
    """
    quantiles = network(batch["history"], batch["known"])
    off = batch["target"][:, :, None] - quantiles
    share = torch.tensor(QUANTILES, device=off.device)
    weight = torch.tensor([1.0, settings.objective.median_weight, 1.0], device=off.device)
    return (torch.maximum(share * off, (share - 1) * off) * weight).mean()


def scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """The absolute error (n,) for each time that forecasts start from, averaged over its series
    and steps; their mean is the metric that decides. Series of one time are one example, for what
    moves one often moves all."""
    error = np.abs(outputs["quantiles"][:, :, 1] - split["target"]).mean(axis=1, dtype=np.float64)
    _, group, counts = np.unique(split["origin"], return_inverse=True, return_counts=True)
    return np.bincount(group, error) / counts


def metrics(outputs: Arrays, split: Arrays, contract: Contract) -> Metrics:
    """The metrics of a split: MASE, sMAPE in %, pinball loss (scaled) and interval coverage."""
    quantiles, target = outputs["quantiles"].astype(np.float64), split["target"].astype(np.float64)
    unit, center = split["unit"][:, None], split["center"][:, None]
    truth, median = target * unit + center, quantiles[:, :, 1] * unit + center
    size = np.maximum(np.abs(truth) + np.abs(median), np.finfo(float).tiny)
    return {
        "mase": float(scores(outputs, split).mean()),
        "smape": float(200 * (np.abs(truth - median) / size).mean()),
        "pinball": float(pinball(quantiles, target).mean()),
        "coverage": float(covered(quantiles, target).mean()),
    }


def details(outputs: Arrays, split: Arrays, contract: Contract) -> dict[str, Any]:
    """What lies behind the metrics: a table by the distance of the step that is forecast."""
    quantiles, target = outputs["quantiles"].astype(np.float64), split["target"].astype(np.float64)
    error = np.abs(quantiles[:, :, 1] - target)
    table = {}
    for steps in np.array_split(np.arange(contract.horizon), min(8, contract.horizon)):
        name = f"{steps[0] + 1}" + (f" to {steps[-1] + 1}" if len(steps) > 1 else "")
        table[name] = {
            "mase": float(error[:, steps].mean()),
            "bias": float((quantiles[:, steps, 1] - target[:, steps]).mean()),
            "coverage": float(covered(quantiles, target)[:, steps].mean()),
            "width": float((quantiles[:, steps, 2] - quantiles[:, steps, 0]).mean()),
        }
    return {"steps_ahead": table}


def slice_scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """One number (n,) like the scores whose mean means something on any part of a split."""
    return scores(outputs, split)


def slices(split: Arrays, contract: Contract) -> dict[str, np.ndarray]:
    """Parts of a split that are looked at by themselves, bool (n,) like the scores: by the weekday
    and the hour at which forecasts start, as clocks show them."""
    shown = clock.wall(np.unique(split["origin"]), contract.zone)
    weekend = (shown // clock.DAY + 3) % 7 >= 5  # the first of January 1970 was a Thursday
    masks = {"from a weekday": ~weekend, "from a weekend": weekend}
    if contract.step < clock.DAY:
        hour = shown % clock.DAY // 3600
        for first in range(0, 24, 6):
            masks[f"from {first} to {first + 6} h"] = (hour >= first) & (hour < first + 6)
    return {name: mask for name, mask in masks.items() if FEWEST <= mask.sum() < len(mask)}


def pinball(quantiles: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The pinball loss (n, step, quantile) of quantiles against the truth (n, step)."""
    off, share = target[:, :, None] - quantiles, np.array(QUANTILES)
    return np.maximum(share * off, (share - 1) * off)


def covered(quantiles: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Whether the truth lies between the outer quantiles (n, step)."""
    return (quantiles[:, :, 0] <= target) & (target <= quantiles[:, :, 2])
