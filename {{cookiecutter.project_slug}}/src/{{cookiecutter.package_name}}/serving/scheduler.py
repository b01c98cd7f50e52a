"""Form batches from requests without ever waiting for more of them.

A small model runs inline, in the event loop, on all requests that arrived in the same turn of it:
handing the work to a thread would cost more than the work. A larger one runs in workers (threads);
a worker that becomes free takes what has queued in the meantime. A request with items that are slow
to encode, such as large pictures, runs alone, in a worker that takes no other requests.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple

from pydantic import TypeAdapter

from ..arrays import Arrays
from ..bundle.load import Bundle
from ..task.contract import Item, Prediction

INLINE_SECONDS = 0.0015  # a request that needs longer goes to a worker
MAX_TURN_SECONDS = 0.005  # longest time that batches may hold the event loop in one turn
MAX_BATCH_SECONDS = 0.05  # longest batch of a worker, where batches make a model faster
LATENCY_WEIGHT = 0.05  # of the newest batch in the moving average of a model's latency
SLOW_SECONDS = 0.005  # a request that needs longer to encode runs in the workers of slow ones
MAX_SLOW_SECONDS = 4.0  # a request that would need longer is refused
BATCHING_GAIN = 0.9  # batches pay if an item in a batch needs less than this part of its time alone

_predictions = TypeAdapter(list[Prediction])


class Overloaded(Exception):
    """More work is queued than can be done in time."""


class TooSlow(Exception):
    """Encoding a request would take too many seconds: the only argument."""


class DeadlineExceeded(Exception):
    """The deadline passed before inference started."""


class BatchResult(NamedTuple):
    """The arrays of a batch, shared by all requests in it; axis 0 is the items."""

    inputs: Arrays
    outputs: Arrays
    items: int


class RequestResult(NamedTuple):
    """A request's rows of a batch, from `start` up to `stop`."""

    body: bytes  # the predictions, as a JSON list
    batch: BatchResult
    start: int
    stop: int
    queued: float  # seconds
    computed: float  # seconds, of the whole batch
    started: float  # the batch, by time.perf_counter


Result = RequestResult | Exception


class PendingRequest:
    """A request that waits for its result; times are those of `time.perf_counter`."""

    __slots__ = ("arrived", "deadline", "encoding", "future", "items")
    future: asyncio.Future[RequestResult]

    def __init__(
        self, items: list[Item], deadline: float = math.inf, encoding: float = 0.0
    ) -> None:
        self.items, self.deadline = items, deadline
        self.encoding = encoding  # seconds, estimated; only what an ordinary item does not need
        self.arrived = time.perf_counter()


class TimedItems(list[Item]):
    """Items that raise DeadlineExceeded in a loop over them once it is too late."""

    __slots__ = ("deadline",)
    deadline: float

    def __iter__(self) -> Iterator[Item]:
        for item in super().__iter__():
            if time.perf_counter() > self.deadline:
                raise DeadlineExceeded
            yield item


class LatencyProfile(NamedTuple):
    """Seconds per item, alone and in a batch, measured when a model is loaded."""

    alone: float
    batched: float

    def max_items(self, seconds: float) -> int:
        """Return the size of a batch of `seconds`; of about one request if batches gain nothing."""
        if self.batched > BATCHING_GAIN * self.alone:
            seconds = min(seconds, 2 * INLINE_SECONDS)
        return max(1, int(seconds / self.batched))


class WorkerPool:
    """Threads that run models; queues take turns in the order in which they got requests."""

    def __init__(self, count: int) -> None:
        self.count = self.free = count
        self.queues: deque[ModelQueue] = deque()
        self.low_priority: deque[ModelQueue] = deque()  # shadows: only when no other queue waits
        self._threads = ThreadPoolExecutor(count, "worker", initializer=_lower_priority)

    def start(self) -> None:
        """Give batches to free workers; called in the event loop."""
        while self.free and (self.queues or self.low_priority):
            queue = (self.queues or self.low_priority).popleft()
            self._run(queue, queue.next_batch())
            if queue.requests:
                queue.join_pool()

    def close(self) -> None:
        """Wait for running batches and end the threads."""
        self._threads.shutdown()

    def _run(self, queue: ModelQueue, requests: list[PendingRequest]) -> None:
        started = time.perf_counter()

        def finish(task: asyncio.Future[list[Result]]) -> None:
            self.free += 1
            results = task.result()
            # Failed requests end early, and would make the model look faster than it is.
            if not any(isinstance(result, Exception) for result in results):
                seconds = time.perf_counter() - started - sum(r.encoding for r in requests)
                newest = max(0.0, seconds) / sum(len(request.items) for request in requests)
                queue.seconds_per_item += LATENCY_WEIGHT * (newest - queue.seconds_per_item)
            resolve(requests, results)
            self.start()

        self.free -= 1
        task = asyncio.get_running_loop().run_in_executor(self._threads, queue.run, requests)
        task.add_done_callback(finish)


class ModelQueue:
    """The requests that wait for one model."""

    def __init__(
        self,
        bundle: Bundle,
        latency: LatencyProfile,
        pool: WorkerPool,
        max_inline: float = -1,  # seconds; longer requests go to the pool. Negative: all of them do
        max_queued: float = math.inf,  # seconds of work per worker; beyond it `submit` refuses
        low_priority: bool = False,  # run only when no other queue waits
        on_batch: Callable[[int], object] = lambda items: None,  # called in any thread
        max_items: int | None = None,  # of a worker's batch; by default as latency says
        slow: ModelQueue | None = None,  # takes requests that are slow to encode
    ) -> None:
        self.bundle, self.latency, self.pool, self.slow = bundle, latency, pool, slow
        self.max_inline, self.max_queued = max_inline, max_queued
        self.low_priority, self.on_batch = low_priority, on_batch
        self.requests: deque[PendingRequest] = deque()
        self._queued_items, self._queued_encoding = 0, 0.0
        self.seconds_per_item = latency.batched  # now, while other threads want the cores too
        self._this_turn: list[PendingRequest] = []  # of the event loop
        self._max_batch = max_items or latency.max_items(MAX_BATCH_SECONDS)
        self._max_inline_batch = latency.max_items(MAX_TURN_SECONDS)

    @property
    def full(self) -> bool:
        """Whether more work is queued than may wait."""
        queued = self._queued_items * self.seconds_per_item + self._queued_encoding
        return queued > self.max_queued * self.pool.count

    def submit(self, items: list[Item], deadline: float) -> asyncio.Future[RequestResult]:
        """Queue a request. Raises Overloaded when too much is queued already, TooSlow."""
        loop = asyncio.get_running_loop()
        request = PendingRequest(items, deadline, self._encoding_seconds(items))
        request.future = loop.create_future()
        if request.encoding > SLOW_SECONDS and self.slow is not None:
            self.slow.enqueue(request)
        elif self.latency.alone * len(items) + request.encoding <= self.max_inline:
            if not self._this_turn:
                loop.call_soon(self._run_inline)
            self._this_turn.append(request)
        else:
            self.enqueue(request)
        return request.future

    def enqueue(self, request: PendingRequest) -> None:
        """Let a worker run the request. Raises Overloaded when too much is queued already."""
        if self.full:
            raise Overloaded
        self._queued_items += len(request.items)
        self._queued_encoding += request.encoding
        if not self.requests:
            self.join_pool()
        self.requests.append(request)
        self.pool.start()

    def join_pool(self) -> None:
        """Wait for a free worker."""
        (self.pool.low_priority if self.low_priority else self.pool.queues).append(self)

    def next_batch(self) -> list[PendingRequest]:
        """Take the requests of a worker's next batch, at least one."""
        requests: list[PendingRequest] = []
        items, encoding = 0, 0.0
        while self.requests:
            more = items + len(self.requests[0].items), encoding + self.requests[0].encoding
            if requests and (more[0] > self._max_batch or more[1] > MAX_BATCH_SECONDS):
                break
            requests.append(self.requests.popleft())
            items, encoding = more
        self._queued_items -= items
        self._queued_encoding -= encoding
        return requests

    def run(self, requests: list[PendingRequest]) -> list[Result]:
        """Run a batch: a result or an error for each request, in order. Safe in any thread.

        A batch that fails is halved until those that fail are alone: nobody fails for others.
        """
        now = time.perf_counter()
        valid = [request for request in requests if now <= request.deadline]
        if len(valid) == len(requests):
            return self._run(requests)
        results = iter(self._run(valid))
        return [
            next(results) if now <= request.deadline else DeadlineExceeded() for request in requests
        ]

    def _run(self, requests: list[PendingRequest]) -> list[Result]:
        if not requests:
            return []
        started = time.perf_counter()
        try:
            # 1. Encode, infer, decode.
            items = [item for request in requests for item in request.items]
            timed = TimedItems(items)
            timed.deadline = min([request.deadline for request in requests])
            inputs = self.bundle.contract.encode(timed)
            if time.perf_counter() > timed.deadline:
                raise DeadlineExceeded
            outputs = self.bundle.run(inputs)
            predictions = self.bundle.contract.decode(outputs, items)
            # 2. Cut the predictions into requests.
            batch, slices, stop = BatchResult(inputs, outputs, len(items)), [], 0
            for request in requests:
                start, stop = stop, stop + len(request.items)
                slices.append((_predictions.dump_json(predictions[start:stop]), start, stop))
            self.on_batch(len(items))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # whatever it is (a panic in Rust is no Exception)
            half = len(requests) // 2
            if not half:
                return [error if isinstance(error, Exception) else RuntimeError(repr(error))]
            return [*self._run(requests[:half]), *self._run(requests[half:])]
        computed = time.perf_counter() - started
        return [
            RequestResult(body, batch, start, stop, started - request.arrived, computed, started)
            for request, (body, start, stop) in zip(requests, slices, strict=True)
        ]

    def _encoding_seconds(self, items: list[Item]) -> float:
        """Estimate by as many items as show that the request is slow. Raises TooSlow."""
        estimate, seconds = self.bundle.contract.encoding_seconds, 0.0
        for number, item in enumerate(items, 1):
            seconds += estimate(item)
            if seconds > SLOW_SECONDS:
                seconds *= len(items) / number
                break
        if seconds > MAX_SLOW_SECONDS and (seconds := sum(map(estimate, items))) > MAX_SLOW_SECONDS:
            raise TooSlow(seconds)
        return seconds

    def _run_inline(self) -> None:
        encoding = list(accumulate(request.encoding for request in self._this_turn))
        size = min(self._max_inline_batch, max(1, bisect(encoding, MAX_TURN_SECONDS)))
        requests, self._this_turn = self._this_turn[:size], self._this_turn[size:]
        if self._this_turn:  # after other callbacks of the event loop
            asyncio.get_running_loop().call_soon(self._run_inline)
        resolve(requests, self.run(requests))


def resolve(requests: list[PendingRequest], results: list[Result]) -> None:
    """Hand the results to those who wait; called in the event loop."""
    for request, result in zip(requests, results, strict=True):
        if request.future.done():  # cancelled: nobody waits any more
            continue
        if isinstance(result, Exception):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)


def _lower_priority() -> None:
    """Let the event loop go first: it has to refuse requests at once under overload."""
    with suppress(AttributeError, OSError):  # only Linux has priorities of threads
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
