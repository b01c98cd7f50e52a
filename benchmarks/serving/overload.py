"""Three times the load that a server takes: what it still answers, and how it says no.

The load is open: requests come when they are due, whether or not earlier ones were answered.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import measure
from environments import Model
from servers import SERVERS, running

FACTOR = 3
MOST = 2000  # connections
WAIT = 10.0  # seconds for the last answers


@dataclass(frozen=True)
class Outcome:
    """How one request ended; status 0 is none."""

    status: int
    milliseconds: float  # since it was due
    end: float  # seconds since the load began


class Pool:
    """Connections to one server; new ones are opened when all are in use."""

    def __init__(self, port: int, path: str) -> None:
        self.port, self.path = port, path
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.count = 0

    async def ask(self, body: bytes) -> int:
        """The status of the answer."""
        if not self.idle and self.count >= MOST:
            return 0
        if self.idle:
            reader, writer = self.idle.pop()
        else:
            self.count += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        self.idle.append((reader, writer))
        return int(answer.split(b" ", 2)[1])


async def flood(pool: Pool, bodies: list[bytes], rate: float, seconds: float) -> list[Outcome]:
    """Send at this rate; how each request ended."""
    found: list[Outcome] = []
    start = time.perf_counter()

    async def one(number: int) -> None:
        try:
            async with asyncio.timeout(WAIT):
                status = await pool.ask(bodies[number % len(bodies)])
        except (OSError, EOFError, TimeoutError):
            status = 0
        now = time.perf_counter() - start
        found.append(Outcome(status, 1000 * (now - number / rate), now))

    tasks: list[asyncio.Task[None]] = []
    while (now := time.perf_counter() - start) < seconds:
        tasks += [asyncio.create_task(one(i)) for i in range(len(tasks), int(now * rate) + 1)]
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    return found


def percentile(values: list[float], share: float) -> float | None:
    """The value below which that share of them lies."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else None


def measured(outcomes: list[Outcome], peak: float, seconds: float) -> dict[str, Any]:
    """Goodput by the peak, and how long the accepted and the refused waited."""
    accepted = [one for one in outcomes if one.status == 200]
    refused = [one.milliseconds for one in outcomes if one.status == 503]
    times = [one.milliseconds for one in accepted]
    statuses = sorted({one.status for one in outcomes})
    return {
        "peak": peak,
        "goodput": sum(one.end <= seconds for one in accepted) / seconds,
        "statuses": {str(s): sum(one.status == s for one in outcomes) for s in statuses},
        "accepted_p50": percentile(times, 0.5),
        "accepted_p99": percentile(times, 0.99),
        "refused_p50": percentile(refused, 0.5),
        "refused_p99": percentile(refused, 0.99),
    }


def overload(model: Model, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The peak by wrk with 64 connections, then the flood, in every round."""
    found = []
    bodies = model.bodies.read_bytes().splitlines()
    with running(SERVERS[0], model) as started:
        for _ in range(rounds):
            used = measure.children()
            load = measure.wrk(started.target(), 64, seconds)
            peak = load["requests"] / load["seconds"]
            used = (measure.children() - used) / load["seconds"]
            pool = Pool(started.port, started.server.path)
            begun, own = time.perf_counter(), time.process_time()
            outcomes = asyncio.run(flood(pool, bodies, FACTOR * peak, seconds))
            own = (time.process_time() - own) / (time.perf_counter() - begun)
            cores = {"peak_load_cores": used, "flood_load_cores": own}
            found.append(measured(outcomes, peak, seconds) | cores)
            started.check()  # it answers rightly again
    return found
