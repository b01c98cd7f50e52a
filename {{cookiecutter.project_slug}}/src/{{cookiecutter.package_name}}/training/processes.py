"""Training in several processes that `torchrun` starts; alone, every function here does nothing.

Gradients are summed by one explicit message per step. DistributedDataParallel would weigh all
processes alike, though one may have fewer examples of a step, and wraps the network, whose methods
objectives call. The price: the message is not sent while the gradient is still being computed.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from ..arrays import Arrays
from ..config import UserError, WorkError

T = TypeVar("T")


def count() -> int:
    """Return the number of connected processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return this process's number; the first, 0, alone writes and prints."""
    return distributed.get_rank() if distributed.is_initialized() else 0


@contextmanager
def connected() -> Iterator[None]:
    """Join the processes that `torchrun` has started; each gets its own GPU, one may print.

    Raises UserError when there are fewer GPUs than processes, WorkError when they cannot connect.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    from torch.distributed.distributed_c10d import PrefixStore  # not in every build of PyTorch
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise UserError(f"torchrun: this machine has {there} GPUs; lower --nproc-per-node")
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, number, size = next(rendezvous("env://"))
        if os.environ.get("LOCAL_WORLD_SIZE") == str(size):
            # torchrun keeps the store when it starts processes again, and with it the addresses of
            # the dead ones. On several machines its counts of restarts may differ.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = PrefixStore(f"attempt-{attempt}", store)
        distributed.init_process_group(backend, store=store, rank=number, world_size=size)
    except RuntimeError as error:  # a wrong address or network card
        reason = str(error).strip().partition("\n")[0]
        raise WorkError(f"torchrun: the processes cannot connect: {reason}") from None
    if rank():
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 until the process ends
    yield
    _together(distributed.barrier)  # an error does not come here: then the others may not answer
    if rank():
        # At once: gloo's threads may abort a process that tidies up while another still works.
        sys.stderr.flush()
        os._exit(0)
    distributed.destroy_process_group()


def sum_gradients(parameters: Iterable[nn.Parameter], losses: list[Tensor]) -> Tensor:
    """Sum the gradients over all processes, in place, and return the sum of their `losses`.

    As one message: a parameter without a gradient takes part with zeros, since it may have one in
    another process.
    """
    loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
    if count() == 1:
        return loss
    trained = [each for each in parameters if each.requires_grad]
    gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in trained)
    message = torch.cat([loss.reshape(1), *(each.flatten() for each in gradients)])
    _together(lambda: distributed.all_reduce(message))
    total, *summed = message.split([1, *(each.numel() for each in trained)])
    for parameter, gradient in zip(trained, summed, strict=True):
        # In the parameter's order in memory, by which fused optimisers go.
        parameter.grad = torch.empty_like(parameter).copy_(gradient.view_as(parameter))
    return total[0]


def any_process(flag: bool) -> bool:
    """Return whether the flag is true in any process, so that all act alike."""
    return flag if count() == 1 else any(gather(flag))


def gather(value: T) -> list[T]:
    """Return the values of all processes, by rank."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    _together(lambda: distributed.all_gather_object(values, value))
    return values


def of_first(value: T) -> T:
    """Return the first process's value in all."""
    if count() == 1:
        return value
    box = [value]
    _together(lambda: distributed.broadcast_object_list(box, 0))
    return box[0]


def on_first(make: Callable[[], T]) -> T:
    """Call a function in the first process alone; return its result in all.

    After an error in the first process, which reports it, the others end.
    """
    result, error = None, None
    if rank() == 0:
        try:
            result = make()
        except Exception as raised:  # the others must not wait for ever
            error = raised
    result, failed = of_first((result, error is not None))
    if error is not None:
        raise error
    if failed:
        raise SystemExit(1)
    return result  # pyright: ignore[reportReturnType]


def copy_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite these tensors in place with those of the first process."""
    for tensor in tensors if count() > 1 else ():
        _together(lambda tensor=tensor: distributed.broadcast(tensor, 0))


def own_rows(rows: int) -> np.ndarray | None:
    """Return the rows that this process predicts, or None for all of them."""
    return None if count() == 1 or rows < count() else np.arange(rank(), rows, count())


def join_rows(own: Arrays) -> Arrays:
    """Put the rows that each process has predicted back into their order."""
    parts = gather(own)
    joined = {}
    for name in own:
        rows = sum(len(part[name]) for part in parts)
        joined[name] = np.empty((rows, *own[name].shape[1:]), own[name].dtype)
        for number, part in enumerate(parts):
            joined[name][number :: len(parts)] = part[name]
    return joined


def _together(communicate: Callable[[], object]) -> None:
    try:
        communicate()
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0].partition(". This")[0]
        raise WorkError(f"lost the other processes of this training: {reason}") from None
