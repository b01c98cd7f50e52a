"""Short experiments on an untrained network, each on its own copy; `diagnosis` judges them."""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..arrays import Arrays
from ..interfaces import Stage
from ..task import contract
from .activations import UselessUnits, running_layers
from .batches import BatchSource
from .fit import epoch_order, pick_device, seed_everything
from .optimizers import build_optimizer, learning_rate

Batch = dict[str, Tensor]
OUTPUT_STEPS, OUTPUT_LR = 150, 0.3  # what fits outputs to a batch; they move by 22 at most
LAG = 4  # steps by which the smoothed loss of the range test is late


class FreeOutputs(nn.Module):
    """Outputs that are parameters and ignore the inputs: a row per example, or one for all.

    Minimising the loss over them shows what any network, or none, could reach.
    """

    def __init__(self, network: nn.Module, outputs: list[Tensor]) -> None:
        super().__init__()
        object.__setattr__(self, "network", network)  # no submodule: its parameters are not ours
        self.outputs = nn.ParameterList(output.detach().clone() for output in outputs)

    def forward(self, *inputs: Tensor) -> Any:
        rows = torch.arange(len(inputs[0]), device=inputs[0].device)
        outputs = [output[rows % len(output)] for output in self.outputs]
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # what a loss asks of its network besides outputs
            return getattr(self.__dict__["network"], name)

    def arrays(self) -> Arrays:
        pairs = zip(contract.OUTPUTS, self.outputs, strict=True)
        return {name: output.detach().cpu().numpy() for name, output in pairs}


@dataclass
class Bounds:
    """The loss of outputs without a network, on one batch."""

    zero: float  # all outputs 0
    constant: float  # the best outputs that are the same for all examples
    floor: float  # the best outputs
    worst: float  # outputs moved as far the other way
    worse: float  # twice these
    best_outputs: Arrays
    worst_outputs: Arrays


class Laboratory:
    """A stage's data and device, and the network as it is before the first step."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage, self.seed = stage, seed
        self.device = pick_device(stage.train.device)
        self.source = BatchSource(stage.data, self.device)
        seed_everything(seed)
        self.untrained = stage.build().to(self.device)

    def build(self) -> nn.Module:
        """Return a copy of the network before the first step, in training mode."""
        seed_everything(self.seed)
        return copy.deepcopy(self.untrained).train()

    def rows(self, steps: int) -> list[Tensor]:
        """Return the rows of the first `steps` batches of a training."""
        rows, epoch = list[Tensor](), 0
        while len(rows) < steps:
            order = epoch_order(self.source.count, self.seed, epoch)
            rows += order.split(self.stage.train.batch_size)
            epoch += 1
        return rows[:steps]

    def batches(self, steps: int) -> Iterator[Batch]:
        return self.source.batches(self.rows(steps))

    def repeatable_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Compute the loss with the same random numbers each time, as augmentation draws them."""
        torch.manual_seed(self.seed)
        return self.stage.loss(network, batch)

    def bounds(self, network: nn.Module, batch: Batch) -> Bounds:
        """Measure what outputs alone can do to the loss of a batch."""
        with torch.no_grad():
            made = network(*(batch[name] for name in contract.INPUTS))
        start = [torch.zeros_like(made)] if isinstance(made, Tensor) else [m * 0 for m in made]
        best, worst = FreeOutputs(network, start), FreeOutputs(network, start)
        constant = FreeOutputs(network, [output[:1] for output in start])
        zero = self.repeatable_loss(best, batch).item()
        lowest = self._move(constant, batch, 1)
        floor, highest = self._move(best, batch, 1), self._move(worst, batch, -1)
        outputs = worst.arrays()
        for output in worst.outputs:
            output.data *= 2
        worse = self.repeatable_loss(worst, batch).item()
        return Bounds(zero, lowest, floor, highest, worse, best.arrays(), outputs)

    def _move(self, outputs: FreeOutputs, batch: Batch, sign: int) -> float:
        """Lower the loss (sign 1) or raise it (-1); return the last one."""
        optimizer = torch.optim.Adam(outputs.parameters(), OUTPUT_LR)
        for step in range(OUTPUT_STEPS):
            optimizer.param_groups[0]["lr"] = OUTPUT_LR * (1 - step / OUTPUT_STEPS)
            optimizer.zero_grad()
            (sign * self.repeatable_loss(outputs, batch)).backward()
            optimizer.step()
        return self.repeatable_loss(outputs, batch).item()

    def initial_loss(self, network: nn.Module, batch: Batch) -> float:
        """Return the loss before training. Dropout is left on, as in training."""
        with torch.no_grad():
            return self.repeatable_loss(network, batch).item()

    def overfit(self, batch: Batch, enough: float, steps: int, lr: float) -> list[float]:
        """Train on one batch until the loss is `enough`: same augmentation each step, no dropout.

        Returns the loss of each step.
        """
        network = self.build()
        for module in network.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
            elif isinstance(module, nn.RNNBase):
                module.dropout = 0.0
        optimizer = torch.optim.Adam(trainable(network), lr)
        losses = list[float]()
        while len(losses) < steps and not (losses and losses[-1] <= enough):
            loss = self.repeatable_loss(network, batch)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return losses

    def range_test(self, steps: int, lowest: float, highest: float) -> "RangeTest":
        """Train with a learning rate that grows exponentially, until the loss explodes.

        Each loss is compared with that of the untrained network on the same batch, for batches
        differ more than a few steps achieve. Smith, Cyclical Learning Rates for Training Neural
        Networks, https://arxiv.org/abs/1506.01186
        """
        network, untrained, found = self.build(), self.build(), RangeTest()
        optimizer = build_optimizer(self.stage.train, network)
        rates, smooth = np.geomspace(lowest, highest, steps).tolist(), 0.0
        for step, (rate, batch) in enumerate(zip(rates, self.batches(steps), strict=True)):
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = self.repeatable_loss(network, batch)
            change = loss.item() - self.initial_loss(untrained, batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), self.stage.train.clip_norm)
            optimizer.step()
            if not math.isfinite(change):
                break
            smooth = 0.8 * smooth + 0.2 * change
            found.rates.append(rates[max(0, step - LAG)])
            found.changes.append(smooth / (1 - 0.8 ** (step + 1)))
            if found.diverged():
                break
        return found

    def rehearse(self, steps: int) -> "Rehearsal":
        """Train for a few steps on the whole schedule, squeezed, and watch every weight."""
        network, train = self.build(), self.stage.train
        optimizer, seen = build_optimizer(self.stage.train, network), Rehearsal(network)
        watched = {name: p for name, p in network.named_parameters() if p.requires_grad}
        started = self._clock()
        for step, batch in enumerate(self.batches(steps)):
            lap = [started, self._clock()]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(train, step, steps)
            loss = self.stage.loss(network, batch)
            lap.append(self._clock())
            optimizer.zero_grad()
            loss.backward()
            lap.append(self._clock())
            gradients = {n: _norm(p.grad) for n, p in watched.items()}
            before = {n: p.detach().clone() for n, p in watched.items()}
            resumed = self._clock()
            nn.utils.clip_grad_norm_(network.parameters(), train.clip_norm)
            optimizer.step()
            ended = self._clock()
            seen.losses.append(loss.item())
            for name, parameter in watched.items():
                seen.gradients[name].append(gradients[name])
                size = max(_norm(before[name]), 1e-12)
                seen.updates[name].append(_norm(parameter.detach() - before[name]) / size)
            seconds = [*np.diff(lap), ended - resumed]
            for part, value in zip(("data", "loss", "backward", "optimizer"), seconds, strict=True):
                seen.seconds[part].append(float(value))
            started = self._clock()
        return seen

    def activations(self, network: nn.Module, steps: int) -> dict[str, tuple[float, int]]:
        """Return the share of useless units of each activation, by layer, and its units.

        A rectified unit is dead if it is always 0, a tanh or sigmoid saturated if it is
        within 1 % of a limit, for all examples of the batches.
        """
        network.train()
        with torch.no_grad(), running_layers(network) as running, UselessUnits(running) as seen:
            for batch in self.batches(steps):
                self.stage.loss(network, batch)
        return {name: (float(dead.mean()), len(dead)) for name, dead in seen.useless.items()}

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass
class RangeTest:
    """The smoothed change of the loss since the beginning, at each learning rate."""

    rates: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)

    def diverged(self) -> bool:
        """Whether the loss is above its beginning by more than it had fallen."""
        return self.changes[-1] > -min(self.changes) > 0

    def steepest(self) -> float:
        """Return the rate at which the loss falls fastest."""
        falling = self.changes[: int(np.argmin(self.changes)) + 1]
        return self.rates[int(np.argmin(np.diff(falling, prepend=0.0)))]

    def limit(self) -> float:
        """Return the rate at which a quarter of what the loss had fallen is lost again."""
        lowest = int(np.argmin(self.changes))
        most = 0.75 * self.changes[lowest]
        after = (i for i in range(lowest, len(self.rates)) if not self.changes[i] <= most)
        return self.rates[next(after, len(self.rates) - 1)]


@dataclass
class Rehearsal:
    """What was seen in the first steps; norms are root mean squares over a tensor's elements."""

    network: nn.Module
    losses: list[float] = field(default_factory=list)
    gradients: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    updates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # / weight
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def matrices(self) -> list[str]:
        """Name the trained weights but biases and scales, whose size says little."""
        return [n for n, p in self.network.named_parameters() if p.requires_grad and p.ndim > 1]


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """List the parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _norm(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else tensor.square().mean().sqrt().item()
