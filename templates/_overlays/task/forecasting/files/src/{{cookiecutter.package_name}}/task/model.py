"""The networks: an LSTM or a Transformer over patches of steps, which correct a ridge regression.

A patch is a few consecutive steps. Past and future patches form one sequence; the future's hold
the calendar, the covariates and the ridge's forecast, and their outputs correct this forecast. The
last layer starts at zero, so an untrained network forecasts exactly what the ridge does.

After training, exponential smoothing of the window is blended in, with a weight from validation.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arrays import Arrays
from . import smoothing
from .contract import QUANTILES, Contract
from .ridge import Ridge
from .settings import ModelSettings, Settings

KINDS = {"lstm": "An LSTM", "transformer": "A Transformer"}


class Network(nn.Module):
    """`history` (batch, window), `known` (batch, window + horizon, channel) → `quantiles`
    (batch, horizon, 3), scaled like the history and in ascending order."""

    margin: Tensor
    filter: Tensor
    blend: Tensor

    def __init__(self, contract: Contract, settings: ModelSettings) -> None:
        super().__init__()
        self.kind, self.patch, width = settings.kind, settings.patch, settings.width
        self.horizon, self.window = contract.horizon, contract.window
        self.ridge = Ridge(contract)
        # per step: the target (in the future the ridge's forecast and last season's), and `known`
        self.past = nn.Linear(self.patch * (1 + self.ridge.special), width)
        self.future = nn.Linear(self.patch * (2 + self.ridge.special), width)
        self.drop = nn.Dropout(settings.dropout)
        count = self.window // self.patch + -(-self.horizon // self.patch)
        if settings.kind == "lstm":
            dropout = settings.dropout if settings.layers > 1 else 0.0
            self.body = nn.LSTM(width, width, settings.layers, batch_first=True, dropout=dropout)
        else:
            self.body = PatchEncoder(width, count, settings)
        self.head = nn.Linear(width, self.patch * len(QUANTILES))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # the distance by which calibration moves the outer quantiles from the median
        self.register_buffer("margin", torch.zeros(contract.horizon))
        # exponential smoothing and its weight; calibration fits them, checkpoints lack them
        self.contract, self.smoothing = contract, settings.smoothing
        self.register_buffer("filter", torch.zeros(self.window, self.horizon), persistent=False)
        self.register_buffer("blend", torch.zeros(()), persistent=False)

    def prepare(self, train: Arrays, validation: Arrays) -> None:
        """Fit the ridge regression."""
        self.ridge.fit(train, validation)

    def calibrate(self, outputs: Arrays, split: Arrays) -> None:
        """Blend in exponential smoothing with the weight that is best on `split`; then widen or
        narrow the interval per step so that it covers its nominal share of `split`.

        `outputs` are those of a network that is not calibrated. The interval's method is
        conformalized quantile regression: Romano, Patterson and Candès,
        https://arxiv.org/abs/1905.03222
        """
        target, (low, median, high) = split["target"], np.moveaxis(outputs["quantiles"], 2, 0)
        if self.smoothing:
            history, added = self.ridge.split_special_days(split)
            weights = smoothing.fit_filter(self.contract, history, target - added)
            smoothed = history @ weights + added
            blend = smoothing.best_blend(median, smoothed, target)
            shift = blend * (smoothed - median)
            low, high = low + shift, high + shift
            self.filter.copy_(torch.from_numpy(weights))
            self.blend.fill_(blend)
        outside = np.sort(np.maximum(low - target, target - high), axis=0)
        share = (QUANTILES[-1] - QUANTILES[0]) * (1 + 1 / len(target))
        row = min(int(np.ceil(share * len(target))), len(target)) - 1
        self.margin += torch.from_numpy(outside[row]).to(self.margin)

    def ablations(self) -> dict[str, nn.Module]:
        """Return the network without exponential smoothing, not calibrated, if it is blended in."""
        alone = copy.deepcopy(self)
        alone.smoothing = False
        alone.margin.zero_()
        return {"Network without exponential smoothing": alone} if self.smoothing else {}

    def forward(self, history: Tensor, known: Tensor) -> Tensor:
        history, known, added = self.ridge.without_special_days(history, known)
        base = self.ridge.ordinary(history, known)
        hidden = self.body(self.drop(self._tokens(history, known, base)))
        if self.kind == "lstm":
            hidden = hidden[0]
        ahead = self.drop(hidden[:, self.window // self.patch :])
        raw = self.head(ahead).unflatten(2, (self.patch, len(QUANTILES))).flatten(1, 2)
        shift, below, above = raw[:, : self.horizon].unbind(dim=2)
        median = base + shift
        if not self.training and self.smoothing:
            median = median + self.blend * (history @ self.filter - median)
        median = median + added
        low = median - functional.relu(functional.softplus(below) + self.margin)
        high = median + functional.relu(functional.softplus(above) + self.margin)
        return torch.stack([low, median, high], dim=2)

    def _tokens(self, history: Tensor, known: Tensor, base: Tensor) -> Tensor:
        """Embed patches of the past, then of the future, (batch, patch, width)."""
        # Relative to the past's own level, so that a trend does not leave the training range.
        level = self.ridge.level(history)
        spread = (history - level).square().mean(dim=1, keepdim=True).sqrt() + 0.1
        references = torch.stack([base, self.ridge.reference(history)], dim=2)
        past = ((history - level) / spread)[:, :, None]
        future = (references - level[:, :, None]) / spread[:, :, None]
        past = torch.cat([past, known[:, : self.window]], dim=2)
        future = torch.cat([future, known[:, self.window :]], dim=2)
        past = past[:, self.window % self.patch :]  # drop the oldest steps that fill no patch
        future = functional.pad(future, (0, 0, 0, -self.horizon % self.patch))
        parts = [self.past(self._patches(past)), self.future(self._patches(future))]
        return torch.cat(parts, dim=1)

    def _patches(self, steps: Tensor) -> Tensor:
        return steps.unflatten(1, (-1, self.patch)).flatten(2)


class PatchEncoder(nn.Module):
    """Pre-norm transformer blocks over `count` patches. Vaswani et al., Attention Is
    All You Need, https://arxiv.org/abs/1706.03762; Xiong et al., https://arxiv.org/abs/2002.04745
    """

    def __init__(self, width: int, count: int, settings: ModelSettings) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(count, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.place
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Block(nn.Module):
    """A transformer block: attention and feed-forward, each with a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(self.before(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(dim=0)
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.drop(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.drop(self.inner(self.between(x)))


def build(settings: Settings, contract: Contract) -> nn.Module:
    """Build a network with random weights from torch's global generator."""
    return Network(contract, settings.model)


def describe(network: nn.Module) -> str:
    """Describe the network in one sentence for the report."""
    assert isinstance(network, Network), "made by build"
    count = sum(parameter.numel() for parameter in network.parameters())
    share = float(network.blend)
    blend = f", blended with exponential smoothing (weight {share:.2f})" if share else ""
    return (
        f"{KINDS[network.kind]} with {count:,} parameters that corrects a ridge regression with "
        f"{network.ridge.coefficients.numel():,} coefficients{blend}."
    )
