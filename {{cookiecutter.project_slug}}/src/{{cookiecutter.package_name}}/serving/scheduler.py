"""Requests become batches without ever waiting for more of them.

A small model runs in the event loop, on all that arrived in the same turn of it: handing the work
to a thread would cost more than the work. A larger one runs in lanes, threads of its own; a lane
that becomes free takes what has queued meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from pydantic import TypeAdapter

from ..bundle.load import Bundle
from ..interfaces import Arrays, InvalidItem
from ..task.contract import Item, Prediction

INLINE_SECONDS = 0.0015  # a request that needs longer goes to a lane
MAX_TURN_SECONDS = 0.005  # longest time that batches may hold the event loop in one turn
MAX_BATCH_SECONDS = 0.05  # longest batch of a lane, where batches make a model faster
LATENCY_WEIGHT = 0.05  # weight of a batch's time in what is believed of the next ones
BATCHING_GAIN = (
    0.9  # of the time alone that an item in a batch must need for batches to be worth it
)

_predictions = TypeAdapter(list[Prediction])


class Overloaded(Exception):
    """More work waits than can be done in time."""


class DeadlineExceeded(Exception):
    """The deadline passed before the work was begun."""


class BatchResult(NamedTuple):
    """A batch: its arrays, shared by all requests in it."""

    inputs: Arrays
    outputs: Arrays
    items: int


class RequestResult(NamedTuple):
    """A request's part of a batch."""

    body: bytes  # the predictions, as a JSON list
    ran: BatchResult
    start: int  # its first row
    stop: int
    queued: float  # seconds
    computed: float


class PendingRequest:
    """A request that waits for its answer."""

    __slots__ = ("arrived", "deadline", "future", "items")
    future: asyncio.Future[RequestResult]

    def __init__(self, items: list[Item], deadline: float = math.inf) -> None:
        self.items, self.deadline = items, deadline
        self.arrived = time.perf_counter()


class LatencyProfile(NamedTuple):
    """What an item costs in seconds, alone and in a batch, measured when a model is loaded."""

    alone: float
    batched: float

    def most(self, seconds: float) -> int:
        """Items of the largest batch: one request's if batches bring nothing."""
        if self.batched > BATCHING_GAIN * self.alone:
            seconds = min(seconds, 2 * INLINE_SECONDS)
        return max(1, int(seconds / self.batched))


class WorkerPool:
    """Threads that run models; batches start in the order in which their queues got work."""

    def __init__(self, count: int) -> None:
        self.count = self.free = count
        self.waiting: deque[ModelQueue] = deque()
        self.later: deque[ModelQueue] = deque()  # shadows: only when nobody else waits
        self._threads = ThreadPoolExecutor(count, "lane", initializer=_step_back)

    def start(self) -> None:
        """Give work to free lanes; called in the event loop."""
        while self.free and (self.waiting or self.later):
            queue = (self.waiting or self.later).popleft()
            jobs = queue.take()
            self.free -= 1
            task = asyncio.get_running_loop().run_in_executor(self._threads, queue.run, jobs)
            task.add_done_callback(partial(self._finish, queue, jobs, time.perf_counter()))
            if queue.jobs:
                (self.later if queue.patient else self.waiting).append(queue)

    def close(self) -> None:
        """Let running work end."""
        self._threads.shutdown()

    def _finish(
        self,
        queue: ModelQueue,
        jobs: list[PendingRequest],
        started: float,
        done: asyncio.Future[list[RequestResult | Exception]],
    ) -> None:
        self.free += 1
        answers = done.result()
        if not any(isinstance(answer, Exception) for answer in answers):  # those are too quick
            queue.took(sum(len(job.items) for job in jobs), time.perf_counter() - started)
        resolve(jobs, answers)
        self.start()


class ModelQueue:
    """The requests that wait for one model."""

    def __init__(
        self,
        bundle: Bundle,
        pace: LatencyProfile,
        lanes: WorkerPool,
        inline: float,
        limit: float,
        patient: bool,
        on_batch: Callable[[int], None],
    ) -> None:
        self.bundle, self.pace, self.lanes = bundle, pace, lanes
        self.inline = inline  # the longest request, in seconds, that the event loop answers itself
        self.limit, self.patient, self.on_batch = limit, patient, on_batch
        self.jobs: deque[PendingRequest] = deque()
        self._waiting = 0  # items of these jobs
        self._seconds = pace.batched  # that a lane needs for an item now, others want the cores too
        self._soon: list[PendingRequest] = []  # those of this turn of the event loop
        self._most = pace.most(MAX_BATCH_SECONDS)
        self._most_inline = pace.most(MAX_TURN_SECONDS)

    @property
    def full(self) -> bool:
        """Whether more waits than is done in the time that may be waited."""
        return self._waiting * self._seconds > self.limit * self.lanes.count

    def submit(self, items: list[Item], deadline: float) -> asyncio.Future[RequestResult]:
        """The coming answer; Overloaded when too much waits already."""
        loop = asyncio.get_running_loop()
        job = PendingRequest(items, deadline)
        job.future = loop.create_future()
        if self.pace.alone * len(items) <= self.inline:
            if not self._soon:
                loop.call_soon(self._turn)
            self._soon.append(job)
            return job.future
        if self.full:
            raise Overloaded
        self._waiting += len(items)
        if not self.jobs:
            (self.lanes.later if self.patient else self.lanes.waiting).append(self)
        self.jobs.append(job)
        self.lanes.start()
        return job.future

    def take(self) -> list[PendingRequest]:
        """The next batch of a lane: what waits, up to what is worth while."""
        jobs = [self.jobs.popleft()]
        items = len(jobs[0].items)
        while self.jobs and items + len(self.jobs[0].items) <= self._most:
            jobs.append(self.jobs.popleft())
            items += len(jobs[-1].items)
        self._waiting -= items
        return jobs

    def took(self, items: int, seconds: float) -> None:
        """Learn from a batch of a lane how quick this model is at present."""
        self._seconds += LATENCY_WEIGHT * (seconds / items - self._seconds)

    def run(self, jobs: list[PendingRequest]) -> list[RequestResult | Exception]:
        """Answers to requests, in order, or what hinders them. Safe in any thread."""
        started = time.perf_counter()
        found: dict[PendingRequest, RequestResult | Exception] = {
            job: DeadlineExceeded() for job in jobs if started > job.deadline
        }
        good = [job for job in jobs if job not in found]
        try:
            inputs = self._encode(good, found)
            good = [job for job in good if job not in found]
            if good:
                self._answer(good, inputs, started, found)
        except Exception as error:  # of this batch; the others and the server go on
            found |= dict.fromkeys(good, error)
        return [found[job] for job in jobs]

    def _turn(self) -> None:
        jobs, self._soon = self._soon[: self._most_inline], self._soon[self._most_inline :]
        if self._soon:  # the rest after others had their turn
            asyncio.get_running_loop().call_soon(self._turn)
        resolve(jobs, self.run(jobs))

    def _encode(
        self, jobs: list[PendingRequest], found: dict[PendingRequest, RequestResult | Exception]
    ) -> Arrays:
        """The inputs of all; a request that cannot be encoded leaves the batch with its error."""
        encode = self.bundle.contract.encode
        try:
            return encode([item for job in jobs for item in job.items])
        except InvalidItem:
            good = []
            for job in jobs:
                try:
                    encode(job.items)
                    good.append(job)
                except InvalidItem as error:
                    found[job] = error
            return encode([item for job in good for item in job.items]) if good else {}

    def _answer(
        self,
        jobs: list[PendingRequest],
        inputs: Arrays,
        started: float,
        found: dict[PendingRequest, RequestResult | Exception],
    ) -> None:
        items = jobs[0].items if len(jobs) == 1 else [item for job in jobs for item in job.items]
        outputs = self.bundle.run(inputs)
        predictions = self.bundle.contract.decode(outputs, items)
        ran, start = BatchResult(inputs, outputs, len(items)), 0
        bodies = []
        for job in jobs:
            stop = start + len(job.items)
            bodies.append((job, _predictions.dump_json(predictions[start:stop]), start, stop))
            start = stop
        computed = time.perf_counter() - started
        for job, body, start, stop in bodies:
            found[job] = RequestResult(body, ran, start, stop, started - job.arrived, computed)
        self.on_batch(len(items))


def resolve(jobs: list[PendingRequest], answers: list[RequestResult | Exception]) -> None:
    """Wake up those who wait."""
    for job, answer in zip(jobs, answers, strict=True):
        if job.future.done():  # nobody waits any more
            continue
        if isinstance(answer, Exception):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)


def _step_back() -> None:
    """Lanes yield to the event loop, which has to refuse what is too much at once."""
    with suppress(AttributeError, OSError):  # Linux alone counts threads like processes
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
