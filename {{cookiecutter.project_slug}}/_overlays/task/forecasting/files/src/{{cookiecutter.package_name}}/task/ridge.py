"""The linear model: it sees all that the networks see, and the networks stand on it."""

import numpy as np
import torch
from torch import Tensor, nn

from ..interfaces import Arrays
from .contract import Contract

PENALTIES = np.logspace(-1, 5, 13)  # on standardised inputs, per 1,000 windows


class Ridge(nn.Module):
    """`history` (batch, window), `known` (batch, window + horizon, channel) → (batch, horizon).

    Each future step is the value one season before it, plus what a linear function of the past
    (relative to its own mean, so that a trend does no harm), the calendar and the covariates says.
    The coefficients are buffers: fitted in closed form and not touched by gradients.
    """

    coefficients: Tensor
    intercept: Tensor
    season_ago: Tensor

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.season, self.window = contract.season, contract.window
        self.calendar = contract.calendar_channels
        own = contract.channels - contract.calendar_channels
        count = contract.window * (1 + own) + contract.horizon * contract.channels
        self.register_buffer("coefficients", torch.zeros(count, contract.horizon))
        self.register_buffer("intercept", torch.zeros(contract.horizon))
        # a horizon longer than the season looks back to the last season that is known
        steps = np.arange(contract.horizon) % contract.season - contract.season
        self.register_buffer("season_ago", torch.from_numpy(steps + contract.window), False)

    def forward(self, history: Tensor, known: Tensor) -> Tensor:
        design = self.design(history, known)
        return self.reference(history) + design @ self.coefficients + self.intercept

    def reference(self, history: Tensor) -> Tensor:
        """For each future step the value one season before it (batch, horizon)."""
        return history[:, self.season_ago]

    def level(self, history: Tensor) -> Tensor:
        """The mean of the newest season (batch, 1)."""
        return history[:, -self.season :].mean(dim=1, keepdim=True)

    def design(self, history: Tensor, known: Tensor) -> Tensor:
        """What the linear function sees (batch, feature). The past's calendar follows from the
        future's, so only covariates are taken from both."""
        past = known[:, : self.window, self.calendar :].flatten(1)
        parts = [history - self.level(history), past, known[:, self.window :].flatten(1)]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def fit(self, train: Arrays, validation: Arrays) -> "Ridge":
        """Least squares with a penalty, of which validation chooses the weight by absolute error.

        Hoerl and Kennard, Ridge Regression, Technometrics 12 (1970), by the eigenvalues of the
        inputs' covariance, so that all penalties cost one decomposition.
        """
        design, history = self._design(train)
        wanted = torch.from_numpy(train["target"]).double() - self.reference(history).double()
        mean, spread = design.mean(dim=0), design.std(dim=0, correction=0)
        spread[spread < 1e-6] = 1.0  # a constant column carries nothing and must not divide by 0
        design.sub_(mean).div_(spread)
        level = wanted.mean(dim=0)
        values, vectors = torch.linalg.eigh(design.T @ design)
        turned = vectors.T @ (design.T @ (wanted - level))
        inputs, truth = self._inputs(validation), torch.from_numpy(validation["target"])
        best = (np.inf, self.coefficients, self.intercept)
        for penalty in PENALTIES * len(design) / 1000:
            own = vectors @ (turned / (values.clamp(min=0) + penalty)[:, None]) / spread[:, None]
            self.coefficients = own.float()
            self.intercept = (level - mean @ own).float()
            error = (self(*inputs) - truth).abs().mean().item()
            best = min(best, (error, self.coefficients, self.intercept), key=lambda found: found[0])
        _, self.coefficients, self.intercept = best
        return self

    @torch.no_grad()
    def predict(self, split: Arrays) -> np.ndarray:
        """Point forecasts (n, horizon), scaled."""
        return self(*self._inputs(split)).numpy()

    def _design(self, split: Arrays) -> tuple[Tensor, Tensor]:
        history, known = self._inputs(split)
        return self.design(history, known).double(), history

    @staticmethod
    def _inputs(split: Arrays) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(split["history"]), torch.from_numpy(split["known"])
