"""Batches: nobody waits for company, nobody suffers from it."""

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

from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.load import Bundle, load_bundle
from {{ cookiecutter.package_name }}.interfaces import Arrays, InvalidItem
from {{ cookiecutter.package_name }}.serving import models
from {{ cookiecutter.package_name }}.serving.scheduler import (
    DeadlineExceeded,
    LatencyProfile,
    ModelQueue,
    Overloaded,
    PendingRequest,
    RequestResult,
    WorkerPool,
)
from {{ cookiecutter.package_name }}.task.contract import Contract, Item, Prediction

from . import servers
from .conftest import Traffic

# Longer rows beside one's own change the order of sums in a network, and so its last bits.
TOLERANCE = 1e-5
LANES, INLINE = -1.0, math.inf


class Session:
    """A model's session that waits for a gate, fails when told to, and remembers its calls."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.broken = False
        self.sizes: list[int] = []
        self.threads: list[str] = []

    def run(self, names: Any, inputs: Arrays) -> Any:
        self.entered.set()
        assert self.gate.wait(20)
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
def lanes(session: Session) -> Iterator[WorkerPool]:
    lanes = WorkerPool(1)
    yield lanes
    session.gate.set()
    lanes.close()


@pytest.fixture
def make(bundle: Bundle, session: Session, lanes: WorkerPool) -> Callable[..., ModelQueue]:
    """A queue in front of the session, of items that cost 1 ms alone and half of that together."""
    watched = dataclasses.replace(bundle, session=session)  # pyright: ignore[reportArgumentType]

    def make(inline: float = LANES, limit: float = 1.0, patient: bool = False) -> ModelQueue:
        pace = LatencyProfile(0.001, 0.0005)
        return ModelQueue(watched, pace, lanes, inline, limit, patient, on_batch=lambda items: None)

    return make


@pytest.fixture
def items(traffic: Traffic) -> list[Item]:
    return [Item.model_validate(item) for item in traffic.usual[:40]]


def good(answer: RequestResult | Exception) -> RequestResult:
    assert isinstance(answer, RequestResult), answer
    return answer


def outputs(answer: RequestResult) -> Arrays:
    return {name: a[answer.start : answer.stop] for name, a in answer.ran.outputs.items()}


def test_results_do_not_depend_on_who_shares_the_batch(
    make: Callable[..., ModelQueue], items: list[Item]
) -> None:
    queue, draw = make(), random.Random(0)
    alone = [good(queue.run([PendingRequest([item])])[0]) for item in items]
    for size in (2, 3, 8, 17, 40) * 3:
        chosen = draw.sample(range(len(items)), min(size, len(items)))
        together = queue.run([PendingRequest([items[place]]) for place in chosen])
        for place, answer in zip(chosen, together, strict=True):
            for name, values in outputs(good(answer)).items():
                own = outputs(alone[place])[name]
                np.testing.assert_allclose(values, own, rtol=TOLERANCE, atol=TOLERANCE)


def test_answers_are_in_the_order_of_items_and_requests(
    make: Callable[..., ModelQueue], items: list[Item]
) -> None:
    queue = make()
    sizes = [1, 5, 2, 9]
    jobs, start = [], 0
    for size in sizes:
        jobs.append(PendingRequest(items[start : start + size]))
        start += size
    found = [good(answer) for answer in queue.run(jobs)]
    (whole,) = queue.run([PendingRequest(items[:start])])
    assert b"[" + b",".join(a.body[1:-1] for a in found) + b"]" == good(whole).body
    assert [answer.stop - answer.start for answer in found] == sizes


class Picky:
    """A contract that refuses one of the items, as some tasks' contracts do."""

    def __init__(self, contract: Contract, refused: Item) -> None:
        self.contract, self.refused = contract, refused

    def encode(self, items: list[Item]) -> Arrays:
        if self.refused in items:
            raise InvalidItem(items.index(self.refused), "field", "is not to be had")
        return self.contract.encode(items)

    def decode(self, outputs: Arrays, items: list[Item]) -> list[Prediction]:
        return self.contract.decode(outputs, items)


def test_an_invalid_item_fails_its_own_request_only(
    make: Callable[..., ModelQueue], bundle: Bundle, items: list[Item]
) -> None:
    queue, (*good_ones, bad) = make(), items[:4]
    contract: Any = Picky(bundle.contract, bad)
    queue.bundle = dataclasses.replace(bundle, contract=contract)
    first, wrong, last = queue.run(
        [PendingRequest(good_ones[:2]), PendingRequest([bad]), PendingRequest(good_ones)]
    )
    assert isinstance(wrong, InvalidItem)
    assert (wrong.index, wrong.field, str(wrong)) == (0, "field", "is not to be had")
    assert good(first).stop - good(first).start == 2
    assert good(last).stop - good(last).start == 3
    (second,) = queue.run([PendingRequest([good_ones[0], bad])])
    assert isinstance(second, InvalidItem)
    assert second.index == 1


def test_a_model_that_raises_fails_its_batch_and_not_the_next(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    queue = make()
    session.broken = True
    broken = queue.run([PendingRequest(items[:1]), PendingRequest(items[1:2])])
    assert [str(error) for error in broken] == ["broken on purpose"] * 2
    session.broken = False
    good(queue.run([PendingRequest(items[:1])])[0])


@pytest.mark.parametrize("inline", [INLINE, LANES])
def test_work_whose_deadline_passed_is_not_done(
    make: Callable[..., ModelQueue], session: Session, items: list[Item], inline: float
) -> None:
    async def late() -> None:
        queue = make(inline)
        futures = [
            queue.submit(items[:1], time.perf_counter() - 0.001),
            queue.submit(items[1:2], time.perf_counter() + 60),
        ]
        passed, in_time = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(passed, DeadlineExceeded)
        assert isinstance(in_time, RequestResult)

    asyncio.run(late())
    assert session.sizes == [1]


@pytest.mark.parametrize("inline", [INLINE, LANES])
def test_a_lone_request_is_answered_without_any_timer(
    make: Callable[..., ModelQueue],
    items: list[Item],
    inline: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("somebody waits for a timer")

    async def lone() -> None:
        queue = make(inline)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "call_at", forbidden)
            answer = await queue.submit(items[:1], math.inf)
        assert answer.queued < 0.5

    asyncio.run(lone())


def test_what_arrives_in_one_turn_of_the_event_loop_is_one_batch(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def together() -> None:
        queue = make(INLINE)
        futures = [queue.submit([item], math.inf) for item in items[:9]]
        await asyncio.gather(*futures)

    asyncio.run(together())
    assert session.sizes == [9]


def test_a_turn_of_the_event_loop_is_bounded(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def many() -> None:
        queue = make(INLINE)
        futures = [queue.submit([items[n % len(items)]], math.inf) for n in range(100)]
        for answer in await asyncio.gather(*futures):
            assert answer.stop - answer.start == 1

    asyncio.run(many())
    assert sum(session.sizes) == 100
    assert max(session.sizes) == 10  # of half a millisecond each


def test_lanes_take_what_queued_meanwhile(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def meanwhile() -> None:
        queue = make()
        session.gate.clear()
        futures = [queue.submit(items[:1], math.inf)]
        assert await asyncio.to_thread(session.entered.wait, 10)
        futures += [queue.submit([item], math.inf) for item in items[1:6]]
        session.gate.set()
        await asyncio.gather(*futures)

    asyncio.run(meanwhile())
    assert session.sizes == [1, 5]


def test_big_requests_of_small_models_leave_the_event_loop(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def both() -> None:
        queue = make(inline=0.0015)
        await queue.submit(items[:1], math.inf)
        await queue.submit(items[:2], math.inf)

    asyncio.run(both())
    small, big = session.threads
    assert small == threading.main_thread().name
    assert big.startswith("lane")


def test_too_much_work_is_refused_at_once_and_it_recovers(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def overload() -> None:
        queue = make(limit=0.0102)  # 20 items of half a millisecond, and one that goes beyond
        session.gate.clear()
        running = queue.submit(items[:1], math.inf)
        assert await asyncio.to_thread(session.entered.wait, 10)
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


def test_the_shadow_waits_behind_all_others(
    make: Callable[..., ModelQueue], session: Session, items: list[Item]
) -> None:
    async def race() -> list[str]:
        champion, shadow = make(), make(patient=True)
        order: list[str] = []
        session.gate.clear()
        futures = [champion.submit(items[:1], math.inf)]
        assert await asyncio.to_thread(session.entered.wait, 10)
        for name, queue in (("shadow", shadow), ("champion", champion), ("shadow", shadow)):
            future = queue.submit(items[:1], math.inf)
            future.add_done_callback(lambda _, name=name: order.append(name))
            futures.append(future)
        session.gate.set()
        await asyncio.gather(*futures)
        return order

    assert asyncio.run(race()) == ["champion", "shadow", "shadow"]


@pytest.mark.parametrize(
    ("wanted", "slow", "engine_name"),
    [
        ("inline", True, "inline"),
        ("lanes", False, "lanes"),
        ("auto", True, "lanes"),
        ("auto", False, "inline"),
    ],
)
def test_the_engine_is_chosen_by_timing_and_can_be_set(
    deployment: Path,
    example: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    slow: bool,
    engine_name: str,
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
    with servers.started(deployment, engine=wanted) as client:
        (model,) = client.get("/v1/models").json()["models"]
        assert model["engine"] == engine_name
        if slow:
            assert model["microseconds_per_item"] >= 2000
        assert client.post("/v1/predict", json=example).status_code == 200
    assert threads[-1].startswith("lane") == (engine_name == "lanes")
