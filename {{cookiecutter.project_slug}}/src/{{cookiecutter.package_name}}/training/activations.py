"""Watch the activation functions of a network while it runs, and find units that do nothing."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

RECTIFIERS = {"relu", "gelu", "silu", "elu", "leaky_relu", "relu6", "hardswish", "mish"}
SATURATING = {"tanh": -1.0, "sigmoid": 0.0}  # with the lower limit; the upper one is 1
DEAD = 1e-4  # a rectified unit whose values never exceed this in size passes nothing on


class Call(NamedTuple):
    """A layer that is running, and how often it has called each activation since it began."""

    layer: str
    counts: dict[str, int]


@contextmanager
def running_layers(network: nn.Module) -> Iterator[list[Call]]:
    """Yield the modules that are running, the innermost last; the list changes as they run."""
    running, handles = list[Call](), []

    def leave(*_: Any) -> None:
        running.pop()

    for name, module in network.named_modules():

        def enter(*_: Any, name: str = name) -> None:
            running.append(Call(name, defaultdict(int)))

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


class UselessUnits(TorchFunctionMode):
    """Notes the dead and saturated units of every activation function, a module's or not."""

    def __init__(self, running: list[Call]) -> None:
        super().__init__()
        self.running = running
        self.useless: dict[str, np.ndarray] = {}  # bool (unit,), by layer and function

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").rstrip("_")
        if self.running and (name in RECTIFIERS or name in SATURATING):
            self._see(name, result)
        return result

    def _see(self, name: str, values: Tensor) -> None:
        # Channels of images come second, the units of everything else last.
        units = values.movedim(1, -1) if values.ndim >= 4 else values
        units = units.reshape(-1, units.shape[-1])
        if name in SATURATING:
            margin = 0.01 * (1 - SATURATING[name])
            useless = ((units > 1 - margin) | (units < SATURATING[name] + margin)).all(dim=0)
        else:
            useless = (units.abs() <= DEAD).all(dim=0)
        layer, counts = self.running[-1]
        counts[name] += 1
        key = ".".join(filter(None, [layer, name]))
        key += f" ({counts[name]})" if counts[name] > 1 else ""
        before = self.useless.setdefault(key, useless.cpu().numpy())
        if before.shape == useless.shape:  # else these are no units, but steps of sequences
            self.useless[key] = before & useless.cpu().numpy()
