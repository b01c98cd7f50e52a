"""Optimisers and learning rates by the names that the settings know; precision; averages."""

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, NAdam, Optimizer

from ..config import UserError, WorkError
from ..settings import TrainSettings


def build_optimizer(train: TrainSettings, network: nn.Module) -> Optimizer:
    """Build `train.optimizer` for the network's parameters, in two groups if `train.no_decay`."""
    kinds: dict[str, Callable[..., Optimizer]] = {
        "adamw": partial(AdamW, fused=True),
        "nadam": partial(NAdam, decoupled_weight_decay=True),
        "sgd": partial(SGD, momentum=0.9, nesterov=True),
    }
    parameters: Any = network.parameters()
    if train.no_decay:
        excluded = _without_decay(network)
        named = list(network.named_parameters())
        parameters = [
            {"params": [p for name, p in named if name not in excluded]},
            {"params": [p for name, p in named if name in excluded], "weight_decay": 0.0},
        ]
    return kinds[train.optimizer](parameters, lr=train.lr, weight_decay=train.weight_decay)


def _without_decay(network: nn.Module) -> set[str]:
    """Name the biases, the weights of norms (both have one axis) and the embeddings."""
    tables = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    }
    return tables | {name for name, p in network.named_parameters() if p.ndim <= 1}


def learning_rate(train: TrainSettings, step: int, total: int) -> float:
    """Return the learning rate of a step by `train.schedule`, from these numbers alone."""
    schedules = {"one-cycle": one_cycle, "cosine": cosine, "constant": constant}
    return schedules[train.schedule](step, total, train.lr, train.warmup)


def one_cycle(step: int, total: int, peak: float, warmup: float) -> float:
    """Return the learning rate of a step: half a cosine from peak / 25 up to `peak` for the share
    `warmup` of all steps, then another down to peak / 10,000.

    Smith and Topin, Super-Convergence, https://arxiv.org/abs/1708.07120
    """
    rise = warmup * total
    if step < rise:
        low, progress = peak / 25, step / rise
    else:
        low, progress = peak / 10_000, (total - step) / (total - rise)
    return low + (peak - low) * (1 - math.cos(math.pi * progress)) / 2


def cosine(step: int, total: int, peak: float, warmup: float) -> float:
    """Return the learning rate of a step: a straight line up to `peak`, half a cosine down to 0.

    Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983, without restarts
    """
    rise = warmup * total
    if step < rise:
        return constant(step, total, peak, warmup)
    return peak * (1 + math.cos(math.pi * (step - rise) / (total - rise))) / 2


def constant(step: int, total: int, peak: float, warmup: float) -> float:
    """Return the learning rate of a step: a straight line up to `peak`, then `peak`."""
    return peak * min(1.0, (step + 1) / max(1.0, warmup * total))


def autocast(train: TrainSettings, device: torch.device) -> Callable[[], AbstractContextManager]:
    """Return what to compute the loss in: nothing for float32, else mixed precision.

    Weights, optimiser and evaluation stay in float32. Raises UserError where the device cannot.
    """
    if train.precision == "float32":
        return nullcontext
    refusal = ""
    if train.precision == "float16" and device.type == "cpu":
        refusal = "a CPU is slower with it and may overflow; use bfloat16 or float32"
    if train.precision == "bfloat16" and device.type == "cuda":
        refusal = "" if torch.cuda.is_bf16_supported(False) else "this GPU lacks it; use float16"
    if refusal:
        raise UserError(f"train.precision={train.precision}: {refusal}")
    return partial(torch.autocast, device.type, getattr(torch, train.precision))


def compile_network(network: nn.Module, device: torch.device) -> None:
    """Compile the network in place, if the tools for it work here. Raises WorkError otherwise."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except Exception as error:  # every backend has its own kinds
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        tool = "Triton" if device.type == "cuda" else "a C++ compiler such as g++"
        raise WorkError(
            f"train.compile=true: torch.compile does not work here, it needs {tool}: {reason}; "
            "install it or leave train.compile=false"
        ) from None
    network.compile()


class WeightAverage:
    """An exponential moving average of a network's weights and buffers.

    After step t it moves by 1 - min(decay, (1 + t) / (10 + t)): at first faster, so that the random
    initial weights are soon forgotten. Polyak and Juditsky, 1992; the rule is TensorFlow's.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.network = decay, copy.deepcopy(network)
        self.pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the network after its step number `step`, counted from 1."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for mean, new in self.pairs:
            if mean.is_floating_point():
                mean.lerp_(new, share)
            else:  # a counter
                mean.copy_(new)


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*(p.data for p in network.parameters()), *network.buffers()]
