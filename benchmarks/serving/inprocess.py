"""What the server's own work costs, without sockets: requests are handed to the application itself.

Runs in the environment of the server, in an empty folder.

    python inprocess.py BODIES ROUNDS REQUESTS

Prints JSON: CPU microseconds per request by requests in flight and by what is switched off, those
of the collector, and where they go. CPU of all the server's threads counts.
"""

import asyncio
import cProfile
import json
import pstats
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvloop
from bench.config import load_settings
from bench.serving import context, models
from bench.serving.app import create_app
from bench.serving.collector import Collector
from bench.serving.wiring import ServerSettings

FLIGHTS = (1, 16)
SHOWN = 14  # rows of the profile
OFF = ["nothing", "log", "log, metrics", "log, metrics, routing", "log, metrics, routing, id"]
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"benchmark"),
    (b"content-type", b"application/json"),
]


async def main(bodies: list[bytes], rounds: int, count: int) -> dict[str, Any]:
    """All rounds; what is switched off changes from turn to turn."""
    spent: dict[int, dict[str, list[float]]] = {f: {off: [] for off in OFF} for f in FLIGHTS}
    collected: dict[int, list[float]] = {f: [] for f in FLIGHTS}
    profiles = {}
    async with running() as logging, running("database_url=none") as silent:
        collector = Collector(logging.predict.observer.settings)
        collect(collector)  # creates the tables
        for _ in range(rounds):
            for flight in FLIGHTS:
                for off in OFF:
                    app = logging if off == "nothing" else silent
                    with switched(app, off):
                        seconds = (await turn(app, bodies, flight, count))[0]
                    spent[flight][off].append(seconds / count * 1e6)
                    if app is logging:
                        collected[flight].append(collect(collector) / count * 1e6)
        for flight in FLIGHTS:
            profiles[flight] = await profile(logging, bodies, flight, count)
            collect(collector)
    return {"spent": spent, "collected": collected, "profiles": profiles}


def collect(collector: Collector) -> float:
    """CPU seconds in which the second process moves all that waits to the database."""
    started = time.process_time()
    collector.collect()
    return time.process_time() - started


@asynccontextmanager
async def running(*given: str) -> AsyncIterator[Any]:
    """The application, started and stopped as uvicorn does it."""
    app, inbox, outbox = (
        create_app(load_settings(ServerSettings, overrides=given)),
        asyncio.Queue(),
        asyncio.Queue(),
    )
    task = asyncio.create_task(app({"type": "lifespan", "state": {}}, inbox.get, outbox.put))
    inbox.put_nowait({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    yield app
    inbox.put_nowait({"type": "lifespan.shutdown"})
    assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
    await task


def switched(app: Any, off: str) -> ExitStack:
    """With these features off; the log is off by setting, the rest is taken out of the path."""
    stack = ExitStack()
    if "metrics" in off:
        stack.enter_context(patch.object(app.predict.observer, "add", lambda _event: None))
    if "routing" in off:
        stack.enter_context(
            patch.object(models.ActiveModels, "choose", lambda active, *_: (active.champion, ""))
        )
    if "id" in off.split(", "):
        stack.enter_context(patch.object(context, "new_request_id", lambda: "0"))
    return stack


async def turn(app: Any, bodies: list[bytes], flight: int, count: int) -> tuple[float, float]:
    """CPU seconds of so many requests: of all threads, and of the event loop's alone."""
    whole, own = time.process_time(), time.thread_time()
    await asyncio.gather(*(caller(app, bodies, count // flight) for _ in range(flight)))
    own = time.thread_time() - own
    await asyncio.to_thread(app.predict.observer.flush)
    return time.process_time() - whole, own


async def caller(app: Any, bodies: list[bytes], count: int) -> None:
    """Requests one after the other."""
    status = 0

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    for number in range(count):
        body = bodies[number % len(bodies)]
        message = {"type": "http.request", "body": body, "more_body": False}

        async def receive(message: dict[str, Any] = message) -> dict[str, Any]:
            return message

        headers = [*HEADERS, (b"content-length", b"%d" % len(body))]
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers}
        await app(scope, receive, send)
        assert status == 200, status


async def profile(app: Any, bodies: list[bytes], flight: int, count: int) -> dict[str, float]:
    """Microseconds per request by place, scaled to what the event loop's thread needs unwatched."""
    whole, own = await turn(app, bodies, flight, count)
    watched = cProfile.Profile()
    watched.enable()
    await asyncio.gather(*(caller(app, bodies, count // flight) for _ in range(flight)))
    watched.disable()
    places: dict[str, float] = {}
    for (file, _line, name), entry in pstats.Stats(watched).stats.items():  # pyright: ignore
        place = label(file, name)
        places[place] = places.get(place, 0.0) + entry[2]
    scale = own / count * 1e6 / sum(places.values())
    first = sorted(places, key=lambda place: -places[place])[:SHOWN]
    found = {place: places[place] * scale for place in first}
    found["the rest"] = own / count * 1e6 - sum(found.values())
    found["other threads: log and metrics"] = (whole - own) / count * 1e6
    return found


def label(file: str, name: str) -> str:
    """Function of our own modules, built-in, or somebody's package."""
    path = Path(file)
    if path == Path(__file__):
        return "this driver"
    if "bench" in path.parts and "src" in path.parts:
        return f"{path.stem}.{name}"
    if file == "~":
        return name.strip("<>").replace("built-in method ", "").replace("method ", "")
    return next(
        (path.parts[i + 1] for i, part in enumerate(path.parts) if part == "site-packages"),
        path.stem,
    )


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_bytes().splitlines()
    print(json.dumps(uvloop.run(main(lines, int(sys.argv[2]), int(sys.argv[3])))))
