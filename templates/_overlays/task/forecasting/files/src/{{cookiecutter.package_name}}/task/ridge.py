"""A ridge regression with the networks' inputs: a baseline, and what the networks correct."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..arrays import Arrays, evenly_spaced, in_chunks, row_count, select_rows
from .contract import INPUTS, Contract

PENALTIES = np.logspace(-1, 5, 13)  # on standardised inputs, per 1,000 windows
FIT_WINDOWS = 20_000  # evenly spread, at most: neighbouring windows are nearly the same
CHUNK = 1024  # windows in memory at once


class Ridge(nn.Module):
    """`history` (batch, window), `known` (batch, window + horizon, channel) → (batch, horizon).

    What special days add is one profile of the day, taken off the past and added to the future: few
    of them cannot teach more, and a window after one is like any other. Each step is the value one
    season before, plus a linear function of the past (relative to its own mean, so that a trend
    does no harm), the calendar and the covariates. Coefficients are buffers: fitted in closed form,
    without gradients.
    """

    coefficients: Tensor
    intercept: Tensor
    season_ago: Tensor
    profile: Tensor

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.season, self.window = contract.season, contract.window
        self.calendar, self.ahead = contract.calendar_channels, contract.ahead_channels
        self.special = contract.channels - contract.special_channels
        self.static = self.special - contract.static_channels
        covariates = self.static - self.calendar
        count = contract.window * (1 + covariates) + contract.horizon * self.ahead
        count += contract.static_channels
        self.register_buffer("coefficients", torch.zeros(count, contract.horizon))
        self.register_buffer("intercept", torch.zeros(contract.horizon))
        # a horizon longer than the season repeats the last known season
        steps = np.arange(contract.horizon) % contract.season - contract.season
        self.register_buffer("season_ago", torch.from_numpy(steps + contract.window), False)
        # checkpoints from before there were special days lack it
        profile = torch.zeros(contract.special_channels)
        self.register_buffer("profile", profile, persistent=len(profile) > 0)

    def forward(self, history: Tensor, known: Tensor) -> Tensor:
        history, known, added = self.without_special_days(history, known)
        return self.ordinary(history, known) + added

    def ordinary(self, history: Tensor, known: Tensor) -> Tensor:
        """Forecast (batch, horizon) as if there were no special days."""
        design = self.design(history, known)
        return self.reference(history) + design @ self.coefficients + self.intercept

    def without_special_days(self, history: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the history without what special days added, `known` without their channels, and
        what they add to the future (batch, horizon)."""
        if not len(self.profile):
            return history, known, torch.zeros_like(history[:, :1])
        added = known[:, :, self.special :] @ self.profile
        past, ahead = added[:, : self.window], added[:, self.window :]
        return history - past, known[:, :, : self.special], ahead

    def reference(self, history: Tensor) -> Tensor:
        """Return each future step's value one season before (batch, horizon)."""
        return history[:, self.season_ago]

    def level(self, history: Tensor) -> Tensor:
        """Return the mean of the newest season (batch, 1)."""
        return history[:, -self.season :].mean(dim=1, keepdim=True)

    def design(self, history: Tensor, known: Tensor) -> Tensor:
        """Return the regressors (batch, feature).

        The past's calendar follows from the future's, so only covariates are taken from both;
        static ones are taken once.
        """
        past = known[:, : self.window, self.calendar : self.static].flatten(1)
        ahead = known[:, self.window :, : self.ahead].flatten(1)
        static = known[:, 0, self.static :]
        return torch.cat([history - self.level(history), past, ahead, static], dim=1)

    @torch.no_grad()
    def fit(self, train: Arrays, validation: Arrays) -> "Ridge":
        """Fit the profile of special days to the changes since last season, then the ridge to what
        is left of `train`; choose its penalty by absolute error on validation.

        Hoerl and Kennard, Ridge Regression, Technometrics 12 (1970), by the eigenvalues of the
        inputs' covariance, so that all penalties cost one decomposition.
        """
        # 1. Sum up the moments of the inputs and of the target, the change since last season.
        count = row_count(train)
        if count > FIT_WINDOWS:
            rows = evenly_spaced(count, FIT_WINDOWS)
            train, count = select_rows(train, rows), FIT_WINDOWS
        self.profile.copy_(self._fit_profile(train))
        mean = sum(design.sum(dim=0) for design, _ in self._chunks(train)) / count
        squares = sum((design - mean).square().sum(dim=0) for design, _ in self._chunks(train))
        spread = torch.as_tensor(squares / count).sqrt()
        spread[spread < 1e-6] = 1.0  # constant columns carry no information; do not divide by 0
        gram, product, level = torch.zeros(len(spread), len(spread)).double(), 0.0, 0.0
        for design, change in self._chunks(train):
            standard = design.sub_(mean).div_(spread)
            gram.addmm_(standard.T, standard)
            product, level = product + standard.T @ change, level + change.sum(dim=0) / count
        # 2. Solve for all penalties; the standardised inputs have mean 0.
        values, vectors = torch.linalg.eigh(gram)
        rotated = vectors.T @ product
        penalties = torch.from_numpy(PENALTIES * count / 1000)
        shrunk = rotated / (values.clamp(min=0)[:, None] + penalties[:, None, None])
        solved = (vectors @ shrunk) / spread[:, None]  # (penalty, feature, horizon)
        # 3. Keep the best on validation.
        errors = sum(
            (design - mean).matmul(solved).add_(level).sub_(change).abs().sum(dim=(1, 2))
            for design, change in self._chunks(validation)
        )
        best = solved[int(torch.as_tensor(errors).argmin())]
        self.coefficients, self.intercept = best.float(), (level - mean @ best).float()
        return self

    def _fit_profile(self, train: Arrays) -> Tensor:
        """Return the least squares of the changes since last season on those of the channels."""
        count, seasons = len(self.profile), self.season_ago
        gram, product = torch.eye(count).double(), torch.zeros(count).double()
        for chunk in self._tensors(train, *INPUTS, "target") if count else ():
            history, known, target = chunk["history"], chunk["known"], chunk["target"]
            channels = known[:, :, self.special :].double()
            changes = (channels[:, self.window :] - channels[:, seasons]).flatten(0, 1)
            gram.addmm_(changes.T, changes)
            product += changes.T @ (target - self.reference(history)).double().flatten()
        return torch.linalg.solve(gram, product).float()

    @torch.no_grad()
    def predict(self, split: Arrays) -> np.ndarray:
        """Return point forecasts (n, horizon), scaled."""
        return torch.cat([self(**chunk) for chunk in self._tensors(split, *INPUTS)]).numpy()

    @torch.no_grad()
    def split_special_days(self, split: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Return the history without what special days added (n, window), and what they add to the
        future (n, horizon or 1)."""
        parts = [self.without_special_days(**chunk) for chunk in self._tensors(split, *INPUTS)]
        histories, _, added = zip(*parts, strict=True)
        return torch.cat(histories).numpy(), torch.cat(added).numpy()

    def _chunks(self, split: Arrays) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the regressors and the changes since last season, float64, some rows at a time."""
        for chunk in self._tensors(split, *INPUTS, "target"):
            history, known, added = self.without_special_days(chunk["history"], chunk["known"])
            target = (chunk["target"] - added).double()
            yield self.design(history, known).double(), target - self.reference(history).double()

    @staticmethod
    def _tensors(split: Arrays, *names: str) -> Iterator[dict[str, Tensor]]:
        """Yield columns, some rows at a time."""
        for chunk in in_chunks({name: split[name] for name in names}, CHUNK):
            yield {name: torch.from_numpy(column) for name, column in chunk.items()}
