"""Batching: no request waits for others, and none is harmed by them."""

import asyncio
import dataclasses
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from {{ cookiecutter.package_name }}.arrays import Arrays
from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.load import Bundle, load_bundle
from {{ cookiecutter.package_name }}.interfaces import InvalidItem
from {{ cookiecutter.package_name }}.serving import models
from {{ cookiecutter.package_name }}.serving.scheduler import (
    SLOW_SECONDS,
    DeadlineExceeded,
    LatencyProfile,
    ModelQueue,
    Overloaded,
    PendingRequest,
    RequestResult,
    TooSlow,
    WorkerPool,
)
from {{ cookiecutter.package_name }}.task.contract import Contract, Item, Prediction

from . import servers

# Longer items in the same batch change the order of sums in a network, and so the last bits.
TOLERANCE = 1e-5
WORKERS, INLINE = -1.0, math.inf


class Session:
    """A model's session that waits for a gate, fails on demand and records its calls."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.broken = False
        self.sizes: list[int] = []
        self.threads: list[str] = []

    def run(self, names: Any, inputs: Arrays) -> Any:
        self.entered.set()
        assert self.gate.wait(120)
        self.sizes.append(len(next(iter(inputs.values()))))
        self.threads.append(threading.current_thread().name)
        if self.broken:
            raise RuntimeError("broken on purpose")
        return self.real.run(names, inputs)


@pytest.fixture
def bundle(deployment: Path) -> Bundle:
    return load_bundle(*folder.champion_path(deployment))


@pytest.fixture
def session(bundle: Bundle) -> Session:
    return Session(bundle.session)


@pytest.fixture
def pool(session: Session) -> Iterator[WorkerPool]:
    pool = WorkerPool(1)
    yield pool
    session.gate.set()
    pool.close()


@pytest.fixture
def make(bundle: Bundle, session: Session, pool: WorkerPool) -> Callable[..., ModelQueue]:
    """Make a queue before the session; items take 1 ms alone, half of that in a batch."""
    watched = dataclasses.replace(bundle, session=session)  # pyright: ignore[reportArgumentType]

    def make(
        max_inline: float = WORKERS, max_queued: float = 1.0, low_priority: bool = False
    ) -> ModelQueue:
        latency = LatencyProfile(0.001, 0.0005)
        return ModelQueue(
            watched,
            latency,
            pool,
            max_inline,
            max_queued,
            low_priority,
            on_batch=lambda items: None,
        )

    return make


@pytest.fixture
def items(request_items: list[dict[str, Any]]) -> list[Item]:
    return [Item.model_validate(item) for item in request_items[:40]]


def succeeded(result: RequestResult | Exception) -> RequestResult:
    assert isinstance(result, RequestResult), result
    return result


def outputs(result: RequestResult) -> Arrays:
    return {name: a[result.start : result.stop] for name, a in result.batch.outputs.items()}


def test_results_do_not_depend_on_the_rest_of_the_batch(
    make: Callable[..., ModelQueue], items: list[Item]
) -> None:
    queue, draw = make(), random.Random(0)
    alone = [succeeded(queue.run([PendingRequest([item])])[0]) for item in items]
    for size in (2, 3, 8, 17, 40) * 3:
        chosen = draw.sample(range(len(items)), min(size, len(items)))
        together = queue.run([PendingRequest([items[place]]) for place in chosen])
        for place, result in zip(chosen, together, strict=True):
            for name, values in outputs(succeeded(result)).items():
                expected = outputs(alone[place])[name]
                np.testing.assert_allclose(values, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_results_are_in_the_order_of_items_and_requests(
    make: Callable[..., ModelQueue], items: list[Item]
) -> None:
    queue = make()
    sizes = [1, 5, 2, 9]
    requests, start = [], 0
    for size in sizes:
        requests.append(PendingRequest(items[start : start + size]))
        start += size
    results = [succeeded(result) for result in queue.run(requests)]
    (whole,) = queue.run([PendingRequest(items[:start])])
    assert b"[" + b",".join(r.body[1:-1] for r in results) + b"]" == succeeded(whole).body
    assert [result.stop - result.start for result in results] == sizes


class PickyContract:
    """A contract that fails with `error` in a step, `encode` or `decode`, at one of the items."""

    def __init__(
        self, contract: Contract, bad: Item, error: BaseException, step: str = "encode"
    ) -> None:
        self.contract, self.bad, self.error, self.step = contract, bad, error, step
        self.seconds = 0.0  # what encoding the bad item is said to need

    def encode(self, items: list[Item]) -> Arrays:
        if self.bad in items and self.step == "encode":
            if isinstance(self.error, InvalidItem):
                self.error.index = items.index(self.bad)
            raise self.error
        return self.contract.encode(items)

    def decode(self, outputs: Arrays, items: list[Item]) -> list[Prediction]:
        if self.bad in items and self.step == "decode":
            raise self.error
        return self.contract.decode(outputs, items)

    def encoding_seconds(self, item: Item) -> float:
        return self.seconds if item == self.bad else 0.0


def with_contract(queue: ModelQueue, contract: Any) -> ModelQueue:
    queue.bundle = dataclasses.replace(queue.bundle, contract=contract)
    return queue


def test_invalid_item_fails_its_own_request_only(
    make: Callable[..., ModelQueue], bundle: Bundle, items: list[Item]
) -> None:
    *valid, bad = items[:4]
    queue = with_contract(
        make(), PickyContract(bundle.contract, bad, InvalidItem(0, "field", "is invalid"))
    )
    first, failed, last = queue.run(
        [PendingRequest(valid[:2]), PendingRequest([bad]), PendingRequest(valid)]
    )
    assert isinstance(failed, InvalidItem)
    assert (failed.index, failed.field, str(failed)) == (0, "field", "is invalid")
    assert succeeded(first).stop - succeeded(first).start == 2
    assert succeeded(last).stop - succeeded(last).start == 3
    (second,) = queue.run([PendingRequest([valid[0], bad])])
    assert isinstance(second, InvalidItem)
    assert second.index == 1


class Panic(BaseException):
    """What a library in Rust raises."""


@pytest.mark.parametrize("step", ["encode", "decode"])
@pytest.mark.parametrize("error", [KeyError("a bug"), MemoryError("too much"), Panic("at line 7")])
def test_whatever_an_item_raises_fails_its_own_request_only(
    make: Callable[..., ModelQueue],
    bundle: Bundle,
    items: list[Item],
    error: BaseException,
    step: str,
) -> None:
    bad = items[5]
    queue = with_contract(make(), PickyContract(bundle.contract, bad, error, step))
    results = queue.run([PendingRequest([item]) for item in items[:16]])
    assert isinstance(results[5], Exception)
    assert str(error) in str(results[5])
    for result in [*results[:5], *results[6:]]:
        succeeded(result)


def test_deadline_that_passes_while_encoding_is_noticed_between_items(
    make: Callable[..., ModelQueue], bundle: Bundle, items: list[Item], session: Session
) -> None:
    class SlowContract(PickyContract):
        encoded = 0

        def encode(self, items: list[Item]) -> Arrays:
            for _ in items:
                self.encoded += 1
                time.sleep(0.1)
            return super().encode(items)

    contract = SlowContract(bundle.contract, items[0], KeyError(), "none")
    queue = with_contract(make(), contract)
    patient = PendingRequest(items[:1])
    hasty = PendingRequest(items[1:30], time.perf_counter() + 0.25)
    answered, late = queue.run([patient, hasty])
    succeeded(answered)
    assert isinstance(late, DeadlineExceeded)
    assert contract.encoded < 10
    assert session.sizes == [1], "the model does not run for what is too late"


def test_slow_items_are_encoded_alone_in_a_worker_of_their_own(
    make: Callable[..., ModelQueue], bundle: Bundle, items: list[Item], session: Session
) -> None:
    contract = PickyContract(bundle.contract, items[0], KeyError(), "none")
    slow_pool = WorkerPool(1)
    queue = with_contract(make(INLINE), contract)
    queue.slow = with_contract(make(), contract)
    queue.slow.pool, queue.slow._max_batch = slow_pool, 1

    async def race() -> None:
        contract.seconds = 0.1
        session.gate.clear()
        slow = [queue.submit(items[:1], math.inf) for _ in range(3)]
        assert await asyncio.to_thread(session.entered.wait, 120)
        session.gate.set()
        await queue.submit(items[1:2], math.inf)
        await asyncio.gather(*slow)
        with pytest.raises(TooSlow):
            queue.submit(items[:1] * 50, math.inf)
        await queue.submit([items[0], *items[1:2] * 49], math.inf)
        contract.seconds = 0.6
        session.gate.clear()
        running = queue.submit(items[:1], math.inf)
        waiting = [queue.submit(items[:1], math.inf) for _ in range(2)]
        with pytest.raises(Overloaded):
            queue.submit(items[:1], math.inf)
        session.gate.set()
        await asyncio.gather(running, *waiting)

    asyncio.run(race())
    slow_pool.close()
    assert session.sizes == [1] * 4 + [50] + [1] * 3
    assert session.threads.count(threading.main_thread().name) == 1


def test_ordinary_items_are_not_slow(make: Callable[..., ModelQueue], items: list[Item]) -> None:
    assert make()._encoding_seconds(items) < SLOW_SECONDS


def test_model_error_fails_its_batch_and_not_the_next(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    queue = make()
    session.broken = True
    broken = queue.run([PendingRequest(items[:1]), PendingRequest(items[1:2])])
    assert [str(error) for error in broken] == ["broken on purpose"] * 2
    session.broken = False
    succeeded(queue.run([PendingRequest(items[:1])])[0])


@pytest.mark.parametrize("max_inline", [INLINE, WORKERS])
def test_requests_past_their_deadline_are_not_run(
    make: Callable[..., ModelQueue], session: Session, items: list[Item], max_inline: float
) -> None:
    async def late() -> None:
        queue = make(max_inline)
        futures = [
            queue.submit(items[:1], time.perf_counter() - 0.001),
            queue.submit(items[1:2], time.perf_counter() + 60),
        ]
        passed, in_time = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(passed, DeadlineExceeded)
        assert isinstance(in_time, RequestResult)

    asyncio.run(late())
    assert session.sizes == [1]


@pytest.mark.parametrize("max_inline", [INLINE, WORKERS])
def test_lone_request_waits_for_no_timer(
    make: Callable[..., ModelQueue],
    items: list[Item],
    max_inline: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a timer was set")

    async def lone() -> None:
        queue = make(max_inline)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "call_at", forbidden)
            result = await queue.submit(items[:1], math.inf)
        assert result.queued < 0.5

    asyncio.run(lone())


def test_requests_of_one_event_loop_turn_are_one_batch(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def together() -> None:
        queue = make(INLINE)
        futures = [queue.submit([item], math.inf) for item in items[:9]]
        await asyncio.gather(*futures)

    asyncio.run(together())
    assert session.sizes == [9]


def test_inline_batches_are_bounded(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def many() -> None:
        queue = make(INLINE)
        futures = [queue.submit([items[n % len(items)]], math.inf) for n in range(100)]
        for result in await asyncio.gather(*futures):
            assert result.stop - result.start == 1

    asyncio.run(many())
    assert sum(session.sizes) == 100
    assert max(session.sizes) == 10  # half a millisecond each


def test_inline_batches_are_bounded_by_the_time_to_encode_too(
    make: Callable[..., ModelQueue], bundle: Bundle, session: Session, items: list[Item]
) -> None:
    contract = PickyContract(bundle.contract, items[0], KeyError(), "none")
    contract.seconds = 0.0011
    queue = with_contract(make(INLINE), contract)

    async def many() -> None:
        await asyncio.gather(*(queue.submit(items[:1], math.inf) for _ in range(8)))

    asyncio.run(many())
    assert session.sizes == [4, 4]
    assert max(session.sizes) < queue._max_inline_batch


def test_batches_of_workers_are_bounded_by_the_time_to_encode_too(
    make: Callable[..., ModelQueue], bundle: Bundle, session: Session, items: list[Item]
) -> None:
    contract = PickyContract(bundle.contract, items[0], KeyError(), "none")
    contract.seconds = 0.004
    queue = with_contract(make(), contract)

    async def many() -> None:
        session.gate.clear()
        futures = [queue.submit(items[:1], math.inf) for _ in range(31)]
        session.gate.set()
        await asyncio.gather(*futures)

    asyncio.run(many())
    assert session.sizes == [1, 12, 12, 6]


def test_free_worker_takes_all_queued_requests(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def meanwhile() -> None:
        queue = make()
        session.gate.clear()
        futures = [queue.submit(items[:1], math.inf)]
        assert await asyncio.to_thread(session.entered.wait, 120)
        futures += [queue.submit([item], math.inf) for item in items[1:6]]
        session.gate.set()
        await asyncio.gather(*futures)

    asyncio.run(meanwhile())
    assert session.sizes == [1, 5]


def test_big_requests_of_small_models_run_in_a_worker(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def both() -> None:
        queue = make(max_inline=0.0015)
        await queue.submit(items[:1], math.inf)
        await queue.submit(items[:2], math.inf)

    asyncio.run(both())
    small, big = session.threads
    assert small == threading.main_thread().name
    assert big.startswith("worker")


def test_overload_is_refused_at_once_and_ends_with_the_work(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def overload() -> None:
        queue = make(max_queued=0.0102)  # 20 items of half a millisecond, and one beyond
        session.gate.clear()
        running = queue.submit(items[:1], math.inf)
        assert await asyncio.to_thread(session.entered.wait, 120)
        waiting = []
        while not queue.full:
            waiting.append(queue.submit(items[:1], math.inf))
        with pytest.raises(Overloaded):
            queue.submit(items[:1], math.inf)
        assert len(waiting) == 21
        session.gate.set()
        await asyncio.gather(running, *waiting)
        assert not queue.full
        await queue.submit(items[:1], math.inf)

    asyncio.run(overload())


def test_shadow_runs_only_when_no_other_queue_waits(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def race() -> list[str]:
        champion, shadow = make(), make(low_priority=True)
        order: list[str] = []
        session.gate.clear()
        futures = [champion.submit(items[:1], math.inf)]
        assert await asyncio.to_thread(session.entered.wait, 120)
        for name, queue in (("shadow", shadow), ("champion", champion), ("shadow", shadow)):
            future = queue.submit(items[:1], math.inf)
            future.add_done_callback(lambda _, name=name: order.append(name))
            futures.append(future)
        session.gate.set()
        await asyncio.gather(*futures)
        return order

    assert asyncio.run(race()) == ["champion", "shadow", "shadow"]


@pytest.mark.parametrize(
    ("setting", "slow", "engine"),
    [
        ("inline", True, "inline"),
        ("lanes", False, "lanes"),
        ("auto", True, "lanes"),
        ("auto", False, "inline"),
    ],
)
def test_engine_is_chosen_by_latency_and_can_be_set(
    deployment: Path,
    example: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    slow: bool,
    engine: str,
) -> None:
    run, threads = Bundle.run, []
    if not slow:  # whatever the model of this task needs
        monkeypatch.setattr(models, "INLINE_SECONDS", 10.0)

    def watched(self: Bundle, inputs: Arrays) -> Arrays:
        threads.append(threading.current_thread().name)
        if slow:
            time.sleep(0.002)
        return run(self, inputs)

    monkeypatch.setattr(Bundle, "run", watched)
    with servers.started(deployment, engine=setting) as client:
        (model,) = client.get("/v1/models").json()["models"]
        assert model["engine"] == engine
        if slow:
            assert model["microseconds_per_item"] >= 2000
        assert client.post("/v1/predict", json=example).status_code == 200
    assert threads[-1].startswith("worker") == (engine == "lanes")
