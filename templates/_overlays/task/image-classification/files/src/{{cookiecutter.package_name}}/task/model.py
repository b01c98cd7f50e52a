"""The network: blocks of two convolutions, each of which halves the image, or a pretrained one;
or several of these.
"""

import torch
from torch import Tensor, nn

from .calibration import TemperatureScaling
from .contract import Contract
from .pretrained import PretrainedNetwork
from .settings import ModelSettings, Settings


class Network(TemperatureScaling):
    """`image` (batch, channel, row, column) in 0..1 → `logits` (batch, class)."""

    def __init__(self, contract: Contract, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, (height, breadth) = contract.channels, contract.size
        while min(height, breadth) > 3:
            layers += [
                *_convolution(channels, width),
                *_convolution(width, width),
                nn.MaxPool2d(2),
                nn.Dropout(dropout),
            ]
            channels, height, breadth = width, height // 2, breadth // 2
            width = min(2 * width, 512)
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(channels * height * breadth, len(contract.labels))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image - 0.5)) / self.temperature


class Ensemble(TemperatureScaling):
    """`image` (batch, channel, row, column) → mean `logits` (batch, class) of its members.

    In training each member gets a part of the batch of its own, in order, so that each has a loss
    of its own: networks that differ err at different images. Lakshminarayanan et al., Simple and
    Scalable Predictive Uncertainty Estimation, https://arxiv.org/abs/1612.01474
    """

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        if self.training:
            parts = zip(self.members, image.chunk(len(self.members)), strict=False)
            return torch.cat([member(part) for member, part in parts])
        logits = torch.stack([member(image) for member in self.members])
        return logits.mean(dim=0) / self.temperature


def _convolution(channels: int, width: int) -> list[nn.Module]:
    # No bias: the normalisation that follows would cancel it.
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU()]


def build(settings: Settings, contract: Contract) -> nn.Module:
    """Build pretrained networks, or ones with random weights from torch's global generator."""
    members = [_build_member(settings.model, contract) for _ in range(settings.model.members)]
    return Ensemble(members) if len(members) > 1 else members[0]


def _build_member(settings: ModelSettings, contract: Contract) -> nn.Module:
    if settings.pretrained is not None:
        return PretrainedNetwork(contract, settings)
    return Network(contract, settings.width, settings.dropout)


def describe(network: nn.Module) -> str:
    """Describe the network in one sentence for the report."""
    if isinstance(network, Ensemble):
        member = describe(network.members[0])
        member = member[0].lower() + member[1:] if member.startswith("A ") else member
        return f"The mean of {len(network.members)} networks, each {member}"
    count = sum(parameter.numel() for parameter in network.parameters())
    if isinstance(network, PretrainedNetwork):
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return (
            f"{type(network.body).__name__} from {network.name}, pretrained, with {count:,} "
            f"parameters, of which {trained:,} were trained here."
        )
    if isinstance(network, Network):
        layers = sum(isinstance(module, nn.Conv2d) for module in network.modules())
        return f"A convolutional network with {layers} convolutions and {count:,} parameters."
    return f"A network ({type(network).__name__}) with {count:,} parameters."
