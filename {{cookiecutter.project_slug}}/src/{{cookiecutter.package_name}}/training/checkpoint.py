"""Checkpoints: tensors and JSON in one safetensors file, written atomically.

They hold no pickled objects: loading one cannot run code, and classes may change.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import UserError, WorkError
from ..files import write_atomically

Tensors = dict[str, Tensor]


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


def save(
    path: Path, network: nn.Module, optimizer: Optimizer, loss_sum: Tensor, progress: dict[str, Any]
) -> None:
    """Write everything that the next step depends on."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in slots.items()}
    tensors |= {"loss_sum": loss_sum, "random.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    name, keys, *rest = np.random.get_state()
    tensors["random.numpy"] = torch.from_numpy(np.asarray(keys, np.int64))
    about = {"progress": progress, "numpy": [name, *rest], "python": random.getstate()}
    _write(path, tensors, about)


def restore(
    path: Path, network: nn.Module, optimizer: Optimizer, loss_sum: Tensor
) -> dict[str, Any]:
    """Restore what `save` wrote, random generators included, and return the progress.

    Raises UserError when the file cannot be read or does not fit.
    """
    tensors, about = _read(path)
    _load_state(path, network, _below(tensors, "network."))
    slots: dict[int, Tensors] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    loss_sum.copy_(tensors["loss_sum"])
    torch.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    name, *rest = about["numpy"]
    np.random.set_state((name, tensors["random.numpy"].numpy().astype(np.uint32), *rest))
    version, internal, gauss = about["python"]
    random.setstate((version, tuple(internal), gauss))
    return about["progress"]


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
