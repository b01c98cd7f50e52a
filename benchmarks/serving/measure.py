"""One measurement: a load by wrk, and what it cost the processes of the server."""

import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
LUA = Path(__file__).parent / "load.lua"


@dataclass(frozen=True)
class Point:
    """What one load showed; milliseconds as wrk saw them."""

    requests: int
    failed: int
    rps: float
    p50: float
    p99: float
    cpu_ms: float  # of the server's processes, per request
    load_cores: float  # used by wrk
    other_cores: float  # used by everything that is not ours
    logged: float | None  # rows of the prediction log per request, where there is one

    def counts(self, others: float) -> bool:
        """Whether all were answered, and others left us the machine."""
        return bool(self.requests) and not self.failed and self.other_cores <= others


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure."""

    rounds: int = 5
    seconds: int = 4  # of a load
    tries: int = 4  # until a load counts
    others: float = 0.2  # cores that other processes may use meanwhile


QUICK = Plan(rounds=1, seconds=1, tries=1, others=float("inf"))  # a try, no result


@dataclass(frozen=True)
class Target:
    """A server under load."""

    url: str
    bodies: Path | None  # a request in each line; None: plain GETs
    pid: int
    log: Path  # its prediction log


def point(target: Target, connections: int, plan: Plan) -> list[Point]:
    """Measure until a point counts, but only so often; all of them, that one last."""
    found: list[Point] = []
    while len(found) < plan.tries and not (found and found[-1].counts(plan.others)):
        found.append(once(target, connections, plan.seconds))
    return found


def once(target: Target, connections: int, seconds: float) -> Point:
    """Warm up, then measure between two looks at everybody's CPU time."""
    wrk(target, connections, max(1.0, seconds / 4))
    started, machine, server, load = time.perf_counter(), busy(), cpu(target.pid), children()
    own, rows = time.process_time(), logged(target.log)
    found = wrk(target, connections, seconds)
    elapsed, load, server = (
        time.perf_counter() - started,
        children() - load,
        cpu(target.pid) - server,
    )
    other = busy() - machine - server - load - (time.process_time() - own)
    written = None if rows is None else (logged(target.log) or rows) - rows
    count = max(int(found["requests"]), 1)
    return Point(
        requests=int(found["requests"]),
        failed=int(found["failed"]),
        rps=found["requests"] / found["seconds"],
        p50=found["p50"],
        p99=found["p99"],
        cpu_ms=1000 * server / count,
        load_cores=load / elapsed,
        other_cores=max(0.0, other / elapsed),
        logged=None if written is None else written / count,
    )


def logged(log: Path) -> int | None:
    """How many rows a prediction log has; None when there is no such file."""
    if not log.exists():
        return None
    with closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as connection:
        return connection.execute("select coalesce(max(id), 0) from predictions").fetchone()[0]


def wrk(target: Target, connections: int, seconds: float) -> dict[str, float]:
    """Load the server and wait until the load is over."""
    load = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(LUA)]
    environment = {**os.environ, **({"BODIES": str(target.bodies)} if target.bodies else {})}
    done = subprocess.run(
        ["wrk", *load, target.url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    return parse(done.stdout + done.stderr)


def parse(output: str) -> dict[str, float]:
    """The line that load.lua prints."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        sys.exit(f"error: wrk failed: {output.strip()[-500:]}")
    return json.loads(lines[0])


# --- /proc ---------------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(path.name)):
            children.setdefault(int(fields[1]), []).append(int(path.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu(pid: int) -> float:
    """Seconds that a process tree has used, those of its ended children included."""
    return sum(sum(map(int, _stat(one)[11:15])) for one in tree(pid)) / TICKS


def session(pid: int) -> int | None:
    """The session that a process belongs to."""
    fields = _stat(pid)
    return int(fields[3]) if fields else None


def memory(pid: int) -> float:
    """MB of a process tree: its own, and its share of what it shares with others."""
    kilobytes = 0
    for one in tree(pid):
        text = _read(Path(f"/proc/{one}/smaps_rollup"))
        lines = [line for line in text.splitlines() if line.startswith("Pss:")]
        kilobytes += sum(int(line.split()[1]) for line in lines)
    return kilobytes * 1024 / 1e6


def busy() -> float:
    """Seconds that all cores together have not been idle, what the host took away included."""
    return parse_busy(_read(Path("/proc/stat"))) / TICKS


def parse_busy(text: str) -> int:
    """Ticks of the first line: all but idle, waiting, and guests, who are counted as users too."""
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, text.split()[1:9])
    return user + nice + system + irq + softirq + steal


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat that follow the name, which may hold anything."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended


def children() -> float:
    """Seconds that ended children of this process have used, wrk among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
