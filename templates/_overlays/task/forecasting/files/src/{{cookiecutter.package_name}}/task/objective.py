"""The loss and the metrics.

The unit of scaled values is the mean change from season to season in training: their mean absolute
error is the MASE (Hyndman and Koehler, Another look at measures of forecast accuracy,
International Journal of Forecasting 22, 2006).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..arrays import Arrays
from ..interfaces import MetricFormat, Metrics, ScoreMetric
from . import clock
from .contract import QUANTILES, Contract
from .settings import Settings

PRIMARY_METRIC = "mase"
HIGHER_IS_BETTER = False
PROPER_SCORE = ScoreMetric("pinball", higher_is_better=False)
BLOCK_LENGTH = 24  # test windows: three horizons, for neighbours share steps and weather
MIN_SLICE_EXAMPLES = 20  # the mean of fewer origins is too noisy to compare

METRICS = {
    "mase": MetricFormat(
        "MASE",
        1,
        3,
        "mean of |actual - median forecast|, divided by the series' mean absolute change from "
        "season to season in training",
    ),
    "mae": MetricFormat(
        "MAE", 1, 3, "mean of |actual - median forecast|, in the units of the series"
    ),
    "rmse": MetricFormat(
        "RMSE", 1, 3, "root of the mean of (actual - median forecast)², in the units of the series"
    ),
    "smape": MetricFormat(
        "sMAPE, %",
        1,
        2,
        "mean of 200 · |actual - median| / (|actual| + |median|), from 0 to 200; unstable where "
        "values are near zero",
    ),
    "pinball": MetricFormat(
        "Pinball loss",
        1,
        3,
        "mean over the 10, 50 and 90 % quantiles q of max(q · e, (q - 1) · e) with e = actual - "
        "forecast, in the unit of MASE",
    ),
    "coverage": MetricFormat(
        "80 % interval covers, %",
        100,
        1,
        "share of steps whose actual value lies between the 10 and 90 % quantiles; 80 is right",
    ),
}


def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Compute the mean pinball loss over steps and quantiles.

    Koenker and Bassett, Regression Quantiles, Econometrica 46 (1978).
    """
    quantiles = network(batch["history"], batch["known"])
    error = batch["target"][:, :, None] - quantiles
    share = torch.tensor(QUANTILES, device=error.device)
    weight = torch.tensor([1.0, settings.objective.median_weight, 1.0], device=error.device)
    return (torch.maximum(share * error, (share - 1) * error) * weight).mean()


def scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """Score origins (n,): the absolute error, averaged over steps; their mean is the MASE.

    All series of one origin are one example, because they move together.
    """
    error = np.abs(outputs["quantiles"][:, :, 1] - split["target"]).mean(axis=1, dtype=np.float64)
    _, group, counts = np.unique(split["origin"], return_inverse=True, return_counts=True)
    return np.bincount(group, error) / counts


slice_scores = scores


def metrics(outputs: Arrays, split: Arrays, contract: Contract) -> Metrics:
    """Compute MASE, MAE and RMSE in the series' own units, sMAPE in %, pinball loss (scaled) and
    coverage of the 80 % interval."""
    quantiles, target = outputs["quantiles"].astype(np.float64), split["target"].astype(np.float64)
    unit, center = split["unit"][:, None], split["center"][:, None]
    actual, median = target * unit + center, quantiles[:, :, 1] * unit + center
    size = np.maximum(np.abs(actual) + np.abs(median), np.finfo(float).tiny)
    return {
        "mase": float(scores(outputs, split).mean()),
        "mae": float(np.abs(actual - median).mean()),
        "rmse": float(np.sqrt(np.square(actual - median).mean())),
        "smape": float(200 * (np.abs(actual - median) / size).mean()),
        "pinball": float(pinball(quantiles, target).mean()),
        "coverage": float(covered(quantiles, target).mean()),
    }


def details(outputs: Arrays, split: Arrays, contract: Contract) -> dict[str, Any]:
    """Compute error, bias, coverage and interval width by steps ahead."""
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


def slices(split: Arrays, contract: Contract) -> dict[str, np.ndarray]:
    """Select origins, bool (n,) like the scores, by weekday and hour in local time."""
    local = clock.local_seconds(np.unique(split["origin"]), contract.zone)
    weekend = (local // clock.DAY + 3) % 7 >= 5  # 1 January 1970 was a Thursday
    masks, step = {}, contract.frequency.seconds
    if step < 7 * clock.DAY:
        masks = {"from a weekday": ~weekend, "from a weekend": weekend}
    if step < clock.DAY:
        hour = local % clock.DAY // 3600
        for first in range(0, 24, 6):
            masks[f"from {first} to {first + 6} h"] = (hour >= first) & (hour < first + 6)
    return {
        name: mask for name, mask in masks.items() if MIN_SLICE_EXAMPLES <= mask.sum() < len(mask)
    }


def pinball(quantiles: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Compute the pinball loss (n, step, quantile) of quantiles against a target (n, step)."""
    error, share = target[:, :, None] - quantiles, np.array(QUANTILES)
    return np.maximum(share * error, (share - 1) * error)


def covered(quantiles: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return whether the target lies between the outer quantiles, bool (n, step)."""
    return (quantiles[:, :, 0] <= target) & (target <= quantiles[:, :, 2])
