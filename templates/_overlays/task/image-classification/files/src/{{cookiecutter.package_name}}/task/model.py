"""The network: blocks of two convolutions, each of which halves the image, or a pretrained one."""

from torch import Tensor, nn

from .calibration import TemperatureScaling
from .contract import Contract
from .pretrained import PretrainedNetwork
from .settings import Settings


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


def _convolution(channels: int, width: int) -> list[nn.Module]:
    # No bias: the normalisation that follows would cancel it.
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU()]


def build(settings: Settings, contract: Contract) -> nn.Module:
    """Build a pretrained network, or one with random weights from torch's global generator."""
    if settings.model.pretrained is not None:
        return PretrainedNetwork(contract, settings.model)
    return Network(contract, settings.model.width, settings.model.dropout)


def describe(network: nn.Module) -> str:
    """Describe the network in one sentence for the report."""
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
