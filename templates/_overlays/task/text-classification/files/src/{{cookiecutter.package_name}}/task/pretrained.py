"""Pretrained encoders in Hugging Face's format, from a folder or the hub."""

from typing import Any

import torch
from torch import Tensor, nn

from ..config import UserError
from .contract import Contract
from .settings import ModelSettings


class Pretrained(nn.Module):
    """`tokens` (text, token) → a vector for each (text, token, width)."""

    def __init__(self, contract: Contract, settings: ModelSettings) -> None:
        super().__init__()
        self.pad, self.name = contract.pad, str(settings.pretrained)
        self.body = _load_encoder(self.name)
        config: Any = self.body.config
        self.width = int(config.hidden_size)
        longest = getattr(config, "max_position_embeddings", contract.max_tokens)
        if contract.max_tokens > longest:
            raise UserError(
                f"data.tokens={contract.max_tokens}: {settings.pretrained} reads at most {longest}"
            )
        if contract.vocabulary > config.vocab_size:
            raise UserError(
                f"data.tokenizer: has {contract.vocabulary} tokens, but {settings.pretrained} "
                f"knows {config.vocab_size}"
            )
        _freeze(self.body, settings.frozen)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = (tokens != self.pad).long()
        return self.body(input_ids=tokens, attention_mask=mask).last_hidden_state


def _load_encoder(name: str) -> nn.Module:
    try:
        # From its own module: the package names so much that type checkers take 6 s more.
        from transformers.models.auto.modeling_auto import AutoModel
    except ImportError:
        command = 'pip install -e ".[train,pretrained]"'
        raise UserError(f'model.pretrained: needs the extra "pretrained": {command}') from None
    try:  # weights as safetensors only: other formats can run code
        return AutoModel.from_pretrained(  # nosec B615: the user chooses what to trust
            name, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"model.pretrained: {name}: cannot load the encoder: {reason}") from None


def _freeze(body: nn.Module, layers: int) -> None:
    """Freeze the embeddings and the first so many layers; 0 freezes nothing."""
    stacks = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.ModuleList)]
    name, stack = max(stacks, key=lambda stack: len(stack[1]), default=("", nn.ModuleList()))
    if layers > len(stack):
        raise UserError(f"model.frozen={layers}: the encoder has {len(stack)} layers")
    if layers:
        # Parameters are listed in the order of their use: embeddings, then layer by layer.
        for parameter_name, parameter in body.named_parameters():
            parts = parameter_name.removeprefix(f"{name}.").split(".")
            if parameter_name.startswith(f"{name}.") and int(parts[0]) >= layers:
                break
            parameter.requires_grad_(False)
