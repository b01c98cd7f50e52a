"""Pretrained networks for images in Hugging Face's format, from a folder or the hub."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from ..config import UserError
from .calibration import TemperatureScaling
from .contract import Contract
from .settings import ModelSettings


class PretrainedNetwork(TemperatureScaling):
    """`image` (batch, channel, row, column) in 0..1 → `logits` (batch, class)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, contract: Contract, settings: ModelSettings) -> None:
        super().__init__()
        self.name = str(settings.pretrained)
        self.body, scale, shift = _load(self.name)
        self.channels = int(getattr(self.body.config, "num_channels", 3))
        if contract.channels > self.channels:
            raise UserError(f"data.color=true: {self.name} reads grey images")
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        _freeze(self.body, settings.frozen)
        width = self._width(contract)
        self.head = nn.Sequential(
            nn.LayerNorm(width),
            nn.Dropout(settings.dropout),
            nn.Linear(width, len(contract.labels)),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image)) / self.temperature

    def features(self, image: Tensor) -> Tensor:
        """Return a vector for each image (batch, width): the mean over its places and, from a
        transformer, that of the first token (the class token, where there is one)."""
        pixels = image.expand(-1, self.channels, -1, -1) * self.scale + self.shift
        x = self.body(pixel_values=pixels).last_hidden_state
        if x.ndim == 4:
            return x.mean(dim=(2, 3))
        return torch.cat([x[:, 0], x.mean(dim=1)], dim=1)

    def train(self, mode: bool = True) -> Self:
        """Switch to training, but frozen parts keep their batch statistics and drop nothing."""
        super().train(mode)
        for module in self.body.modules():
            flags = [parameter.requires_grad for parameter in module.parameters()]
            if flags and not any(flags):
                module.eval()
        return self

    @torch.no_grad()
    def _width(self, contract: Contract) -> int:
        """Return the length of an image's vector; UserError for a size that does not fit."""
        self.eval()
        try:
            return self.features(torch.zeros(1, contract.channels, *contract.size)).shape[1]
        except (ValueError, RuntimeError) as error:
            size, reason = " × ".join(map(str, contract.size)), " ".join(str(error).split())
            raise UserError(
                f"model.pretrained: {self.name} cannot read images of {size} (data.size): {reason}"
            ) from None
        finally:
            self.train()


def _load(name: str) -> tuple[Any, Tensor, Tensor]:
    """Load the network, and scale and shift that turn 0..1 into what it was trained on."""
    try:
        # From their own modules: the package names so much that type checkers take 6 s more.
        from transformers.image_processing_base import (  # pyright: ignore[reportMissingImports]
            ImageProcessingMixin,
        )
        from transformers.models.auto import modeling_auto  # pyright: ignore[reportMissingImports]
    except ImportError:
        command = 'pip install -e ".[train,pretrained]"'
        raise UserError(f'model.pretrained: needs the extra "pretrained": {command}') from None
    try:  # weights as safetensors only: other formats can run code
        body, loading = modeling_auto.AutoModel.from_pretrained(  # nosec B615: the user chooses
            name, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        processor, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"model.pretrained: {name}: cannot load the network: {reason}") from None
    if body.main_input_name != "pixel_values":
        raise UserError(f"model.pretrained: {name}: is no network for images")
    # Classifiers come without the pooling layer, which is not used here.
    missing = sorted(key for key in loading["missing_keys"] if "pooler" not in key)
    if missing:
        raise UserError(
            f"model.pretrained: {name}: lacks {len(missing)} weights, the first is {missing[0]}"
        )
    return body, *_normalisation(processor)


def _normalisation(processor: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return scale and shift (channel, 1, 1) that apply a preprocessor's settings to 0..1."""
    factor = 255 * (processor.get("rescale_factor", 1 / 255) if processor["do_rescale"] else 1.0)
    mean, std = torch.zeros(1), torch.ones(1)
    if processor["do_normalize"]:
        mean, std = (torch.tensor(processor[f"image_{name}"]) for name in ("mean", "std"))
    return (factor / std).view(-1, 1, 1), (-mean / std).view(-1, 1, 1)


def _freeze(body: nn.Module, stages: int | str) -> None:
    """Freeze everything ("all"), or what precedes the stages and the first so many of them."""
    stacks = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.ModuleList)]
    name, stack = min(stacks, key=lambda s: s[0].count("."), default=("", nn.ModuleList()))
    if stages == "all":
        body.requires_grad_(False)
    elif int(stages) > len(stack):
        raise UserError(f"model.frozen={stages}: the network has {len(stack)} stages")
    elif stages:
        # Parameters are listed in the order of their use: embeddings, then stage by stage.
        for parameter_name, parameter in body.named_parameters():
            parts = parameter_name.removeprefix(f"{name}.").split(".")
            if parameter_name.startswith(f"{name}.") and int(parts[0]) >= int(stages):
                break
            parameter.requires_grad_(False)
