"""A ridge regression with the networks' inputs: a baseline, and what the networks correct."""

import numpy as np
import torch
from torch import Tensor, nn

from ..arrays import Arrays
from .contract import Contract

PENALTIES = np.logspace(-1, 5, 13)  # on standardised inputs, per 1,000 windows


class Ridge(nn.Module):
    """`history` (batch, window), `known` (batch, window + horizon, channel) → (batch, horizon).

    Each future step is the value one season before, plus a linear function of the past (relative
    to its own mean, so that a trend does no harm), the calendar and the covariates. Coefficients
    are buffers: fitted in closed form, without gradients.
    """

    coefficients: Tensor
    intercept: Tensor
    season_ago: Tensor

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.season, self.window = contract.season, contract.window
        self.calendar = contract.calendar_channels
        covariates = contract.channels - contract.calendar_channels
        count = contract.window * (1 + covariates) + contract.horizon * contract.channels
        self.register_buffer("coefficients", torch.zeros(count, contract.horizon))
        self.register_buffer("intercept", torch.zeros(contract.horizon))
        # a horizon longer than the season repeats the last known season
        steps = np.arange(contract.horizon) % contract.season - contract.season
        self.register_buffer("season_ago", torch.from_numpy(steps + contract.window), False)

    def forward(self, history: Tensor, known: Tensor) -> Tensor:
        design = self.design(history, known)
        return self.reference(history) + design @ self.coefficients + self.intercept

    def reference(self, history: Tensor) -> Tensor:
        """Return each future step's value one season before (batch, horizon)."""
        return history[:, self.season_ago]

    def level(self, history: Tensor) -> Tensor:
        """Return the mean of the newest season (batch, 1)."""
        return history[:, -self.season :].mean(dim=1, keepdim=True)

    def design(self, history: Tensor, known: Tensor) -> Tensor:
        """Return the regressors (batch, feature).

        The past's calendar follows from the future's, so only covariates are taken from both.
        """
        past = known[:, : self.window, self.calendar :].flatten(1)
        parts = [history - self.level(history), past, known[:, self.window :].flatten(1)]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def fit(self, train: Arrays, validation: Arrays) -> "Ridge":
        """Fit to `train`; choose the penalty by absolute error on validation.

        Hoerl and Kennard, Ridge Regression, Technometrics 12 (1970), by the eigenvalues of the
        inputs' covariance, so that all penalties cost one decomposition.
        """
        # 1. Standardise the inputs; the target is the change since the season before.
        history, known = self._inputs(train)
        design = self.design(history, known).double()
        change = torch.from_numpy(train["target"]).double() - self.reference(history).double()
        mean, spread = design.mean(dim=0), design.std(dim=0, correction=0)
        spread[spread < 1e-6] = 1.0  # constant columns carry no information; do not divide by 0
        design.sub_(mean).div_(spread)
        level = change.mean(dim=0)
        # 2. Solve for all penalties.
        values, vectors = torch.linalg.eigh(design.T @ design)
        rotated = vectors.T @ (design.T @ (change - level))
        inputs, target = self._inputs(validation), torch.from_numpy(validation["target"])
        best = (np.inf, self.coefficients, self.intercept)
        for penalty in PENALTIES * len(design) / 1000:
            solved = vectors @ (rotated / (values.clamp(min=0) + penalty)[:, None])
            coefficients = solved / spread[:, None]
            self.coefficients = coefficients.float()
            self.intercept = (level - mean @ coefficients).float()
            error = (self(*inputs) - target).abs().mean().item()
            best = min(best, (error, self.coefficients, self.intercept), key=lambda fit: fit[0])
        _, self.coefficients, self.intercept = best
        return self

    @torch.no_grad()
    def predict(self, split: Arrays) -> np.ndarray:
        """Return point forecasts (n, horizon), scaled."""
        return self(*self._inputs(split)).numpy()

    @staticmethod
    def _inputs(split: Arrays) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(split["history"]), torch.from_numpy(split["known"])
