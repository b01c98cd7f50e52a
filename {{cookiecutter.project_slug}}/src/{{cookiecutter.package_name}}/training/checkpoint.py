"""Checkpoints: tensors and JSON in one safetensors file, written atomically.

They hold no pickled objects: loading one cannot run code, and classes may change.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from ..config import UserError, WorkError
from ..files import write_atomically
from . import processes

Tensors = dict[str, Tensor]


@dataclass
class Parts:
    """What every step changes, besides the progress and the random generators."""

    network: nn.Module
    average: nn.Module | None  # of the weights, if the settings ask for it
    optimizer: Optimizer
    scaler: GradScaler
    loss_sum: Tensor  # over the steps of the epoch


def save_weights(path: Path, network: nn.Module) -> None:
    """Write the weights without the state of the training."""
    _write(path, network.state_dict(), {})


def load_weights(path: Path, network: nn.Module) -> None:
    """Load stored weights into a network. Raises UserError when the file does not fit."""
    _load_state(path, network, _read(path)[0])


def load_shared_weights(path: Path, network: nn.Module) -> None:
    """Load the weights that fit a network's by name and shape. Raises UserError if none does."""
    stored, weights = _read(path)[0], network.state_dict()
    shared = {k: v for k, v in stored.items() if k in weights and weights[k].shape == v.shape}
    if not shared:
        raise UserError(f"{path}: has no weights in common with this network")
    network.load_state_dict({**weights, **shared})


def save(path: Path, parts: Parts, progress: dict[str, Any]) -> None:
    """Write everything that the next step depends on, all processes' random generators included.

    Every process has to call it; the first one writes.
    """
    (first, about), *others = processes.gather(_random_state())
    if processes.rank():
        return
    tensors = {f"network.{name}": tensor for name, tensor in parts.network.state_dict().items()}
    if parts.average is not None:
        averages = parts.average.state_dict()
        tensors |= {f"average.{name}": tensor for name, tensor in averages.items()}
    for index, slots in parts.optimizer.state_dict()["state"].items():
        kept = {name: value for name, value in slots.items() if value is not None}
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in kept.items()}
    tensors |= {"loss_sum": parts.loss_sum, **{f"random.{k}": v for k, v in first.items()}}
    for number, (state, _) in enumerate(others, 1):
        tensors |= {f"random-{number}.{name}": tensor for name, tensor in state.items()}
    about |= {"progress": progress, "scaler": parts.scaler.state_dict()}
    _write(path, tensors, about | {"others": [generators for _, generators in others]})


def restore(path: Path, parts: Parts) -> dict[str, Any]:
    """Restore what `save` wrote, random generators included, and return the progress.

    Of a process that the file does not know, since there were fewer, they stay as they are. Raises
    UserError when the file cannot be read or does not fit.
    """
    tensors, about = _read(path)
    _load_state(path, parts.network, _below(tensors, "network."))
    if parts.average is not None:
        _load_state(path, parts.average, _below(tensors, "average."))
    if about.get("scaler"):
        parts.scaler.load_state_dict(about["scaler"])
    slots: dict[int, Tensors] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = tensor
    parts.optimizer.load_state_dict({**parts.optimizer.state_dict(), "state": slots})
    for parameter, kept in parts.optimizer.state.items():
        for slot, tensor in kept.items():  # fused steps go by memory, so its order must be equal
            if tensor.shape == parameter.shape:
                kept[slot] = torch.empty_like(parameter).copy_(tensor)
    parts.loss_sum.copy_(tensors["loss_sum"])
    generators = [about, *about.get("others", [])]
    if (rank := processes.rank()) < len(generators):
        prefix = f"random-{rank}." if rank else "random."
        _set_random_state(_below(tensors, prefix), generators[rank])
    return about["progress"]


def _random_state() -> tuple[Tensors, dict[str, Any]]:
    """Return the states of this process's random generators, as tensors and as JSON."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    name, keys, *rest = np.random.get_state()
    tensors["numpy"] = torch.from_numpy(np.asarray(keys, np.int64))
    return tensors, {"numpy": [name, *rest], "python": random.getstate()}


def _set_random_state(tensors: Tensors, generators: dict[str, Any]) -> None:
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    name, *rest = generators["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), *rest))
    version, internal, gauss = generators["python"]
    random.setstate((version, tuple(internal), gauss))


def _write(path: Path, tensors: Tensors, about: dict[str, Any]) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {"about": json.dumps(about)}
    try:
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))
    except SafetensorError as error:
        raise WorkError(f"{path}: cannot be written: {error}") from None


def _read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["about"])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: is not a readable checkpoint: {error}") from None


def _load_state(path: Path, network: nn.Module, tensors: Tensors) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: does not fit this network: {reason}") from None


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
