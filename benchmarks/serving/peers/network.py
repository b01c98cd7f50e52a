"""The project's network for digits, as somebody serves it with torch."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FOLDER = Path(os.environ.get("MODEL", "."))
ABOUT = json.loads((FOLDER / "about.json").read_text())
LABELS: list[str] = ABOUT["labels"]
TEMPERATURE: float = ABOUT.get("temperature", 1.0)


class Network(nn.Module):
    """`image` (batch, 1, 8, 8) in 0..1 to logits (batch, class)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        wider = min(2 * width, 512)
        for given, made in ((1, width), (width, wider)):
            layers += [*convolution(given, made), *convolution(made, made)]
            layers += [nn.MaxPool2d(2), nn.Dropout()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(wider * 4, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image - 0.5))


def convolution(given: int, made: int) -> list[nn.Module]:
    return [nn.Conv2d(given, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()]


def load() -> nn.Module:
    network = Network(ABOUT["width"], len(LABELS))
    network.load_state_dict(load_file(FOLDER / "weights.safetensors"))
    return network.eval()


@torch.inference_mode()
def probabilities(network: nn.Module, pixels: list[list[list[float]]]) -> list[list[float]]:
    """One row of probabilities per picture."""
    logits = network(torch.tensor(pixels)[:, None]) / TEMPERATURE
    return logits.softmax(dim=1).tolist()
