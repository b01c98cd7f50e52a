"""What the generated server does when things go wrong: killed, flooded, without a database.

    make demo                               # makes the project that is tried
    python benchmarks/faults.py [FAULT …]   # all of them take about twelve minutes

Each fault happens to a real server under load on the loopback; the table goes to docs/faults.md.
PostgreSQL is run by the project's own scripts/services.py; one of the faults needs the program
schemathesis on the path. Linux only.
"""

import argparse
import fcntl
import http.client
import importlib.util
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

TEMPLATE = Path(__file__).parents[1]
PROJECT = TEMPLATE / "build" / "demo" / "digit-reader"
PAGE = TEMPLATE / "docs" / "faults.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
CLIENTS = 4
LOG_SECONDS = 0.25  # the server's default, which the documented bound comes from


class Server:
    """The project's server as a process of its own, in a scratch folder."""

    def __init__(self, folder: Path, **settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        given = {"APP_PORT": str(self.port), "APP_DEPLOYMENT_DIR": str(folder / "deployment")}
        given |= {f"APP_{name.upper()}": value for name, value in settings.items()}
        command = [PROJECT / ".venv" / "bin" / PROJECT.name, "serve"]
        self.log = (folder / "server.log").open("a")
        self.process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **given}, stderr=self.log
        )
        until(lambda: self.get("/readyz")[0] == 200)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 when nobody answers."""
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as client:
                client.request("GET", path)
                answer = client.getresponse()
                return answer.status, answer.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """The sum over all labels."""
        lines = self.get("/metrics")[1].splitlines()
        named = (line.rpartition(" ") for line in lines)
        return sum(float(value) for head, _, value in named if head.partition("{")[0] == name)

    def memory(self) -> float:
        """Proportional set size in MB."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(text.partition("Pss:")[2].split()[0]) / 1024

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        self.process.send_signal(how)
        code = self.process.wait(60)
        self.log.close()
        return code


class Load:
    """Clients that ask without a pause and note what they were answered."""

    def __init__(
        self, server: Server, body: bytes, clients: int = CLIENTS, pause: float = 0
    ) -> None:
        self.server, self.body, self.pause = server, body, pause
        self.answered: dict[str, float] = {}  # request id -> when
        self.statuses: Counter[int] = Counter()
        self.mixed = 0  # answers whose body and header name different versions
        self.seconds: list[float] = []
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        headers = {"content-type": "application/json"}
        while not self._ends.is_set():
            started = time.perf_counter()
            try:
                client.request("POST", "/v1/predict", self.body, headers)
                answer = client.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                client.close()
                if self.server.process.poll() is not None:
                    return
                self.statuses[0] += 1
                continue
            self.seconds.append(time.perf_counter() - started)
            self.statuses[answer.status] += 1
            if answer.status == 200:
                found = json.loads(content)
                self.answered[found["request_id"]] = time.time()
                self.mixed += found["model_version"] != answer.headers["x-model-version"]
            if self.pause:
                time.sleep(self.pause)
        client.close()

    @property
    def failed(self) -> int:
        return sum(self.statuses.values()) - self.statuses[200]


def killed(folder: Path, body: bytes) -> str:
    """kill -9 under load, ten times."""
    lost, ages, answered = [], [], 0
    for _ in range(10):
        server = Server(folder)
        with Load(server, body) as load:
            time.sleep(2)
            died = time.time()
            server.stop(signal.SIGKILL)
        missing = set(load.answered) - logged(folder)
        answered += len(load.answered)
        lost.append(len(missing))
        ages += [died - load.answered[name] for name in missing]
    oldest = max(ages, default=0)
    return (
        f"of {answered:,} answers {sum(lost)} not logged, at most {max(lost)} a kill; the oldest "
        f"{oldest:.2f} s before it (bound: {LOG_SECONDS} s and the write under way)"
    )


def collector_killed(folder: Path, body: bytes) -> str:
    """kill -9 of the collector under load, ten times."""
    server = Server(folder)
    status = folder / "predictions.db.spool" / "collector.json"
    with Load(server, body) as load:
        before = 0
        for _ in range(10):
            until(
                lambda old=before: status.exists() and json.loads(status.read_text())["pid"] != old
            )
            time.sleep(1)
            before = json.loads(status.read_text())["pid"]
            os.kill(before, signal.SIGKILL)
    waited = server.metric("prediction_log_waiting")
    until(lambda: server.metric("prediction_log_waiting") == 0)
    server.stop()
    with closing(sqlite3.connect(folder / "predictions.db")) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM predictions").fetchone()
    missing = len(set(load.answered) - logged(folder))
    return (
        f"of {len(load.answered):,} answers {missing} not logged, {rows - len(load.answered)} rows "
        f"too many; {load.failed} failed; {waited:.0f} rows waited at the end"
    )


def terminated(folder: Path, body: bytes) -> str:
    """SIGTERM under load, ten times."""
    lost = answered = 0
    codes = set()
    for _ in range(10):
        server = Server(folder)
        with Load(server, body) as load:
            time.sleep(1.5)
            codes.add(server.stop())
        answered += len(load.answered)
        lost += len(set(load.answered) - logged(folder))
    return f"of {answered:,} answers {lost} not logged; exit codes {codes}"


def database_stopped(folder: Path, body: bytes) -> str:
    """PostgreSQL stopped for 30 s under load."""
    with services().Postgres() as database:
        server = Server(folder, database_url=database.url)
        with Load(server, body, pause=0.004) as load:
            time.sleep(5)
            database.stop()
            time.sleep(30)
            waited = server.metric("prediction_log_waiting")
            database.start()
            until(lambda: server.metric("prediction_log_waiting") < 500)
        until(lambda: server.metric("prediction_log_waiting") == 0)
        counted = server.metric("prediction_log_lost_total")
        written = server.metric("prediction_log_rows_total")
        server.stop()
    return (
        f"{load.failed} of {sum(load.statuses.values()):,} predictions failed; {waited:.0f} rows "
        f"waited, {len(load.answered) - written:.0f} lost, {counted:.0f} counted as lost"
    )


def database_hangs(folder: Path, body: bytes) -> str:
    """PostgreSQL frozen (SIGSTOP) for 15 s under load."""
    with services().Postgres() as database:
        server = Server(folder, database_url=database.url)
        with Load(server, body, pause=0.004) as load:
            time.sleep(3)
            processes = group(database._process.pid)
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(15)
            slowest = max(load.seconds[-1000:])
            for pid in processes:
                os.kill(pid, signal.SIGCONT)
            time.sleep(1)
        until(lambda: server.metric("prediction_log_waiting") == 0)
        written = server.metric("prediction_log_rows_total")
        server.stop()
    return (
        f"{load.failed} of {sum(load.statuses.values()):,} predictions failed, the slowest took "
        f"{slowest * 1000:.0f} ms; {len(load.answered) - written:.0f} rows lost"
    )


def disk_full(folder: Path, body: bytes) -> str:
    """The server's files may not grow for 10 s, then may again."""
    server = Server(folder)
    with Load(server, body, pause=0.004) as load:
        time.sleep(2)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        time.sleep(10)
        waited = server.metric("prediction_log_waiting")
        endless = resource.RLIM_INFINITY, resource.RLIM_INFINITY
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, endless)
        time.sleep(1)
    until(lambda: server.metric("prediction_log_waiting") == 0)
    server.stop()
    lost = len(set(load.answered) - logged(folder))
    return f"{waited:.0f} rows waited in memory, {load.failed} predictions failed, {lost} rows lost"


def swapped(folder: Path, body: bytes) -> str:
    """50 deployments under load, back and forth between two versions."""
    path = folder / "deployment" / "deployment.json"
    first = json.loads(path.read_text())
    second = {**first, "champion": twin(folder / "deployment", first["champion"])}
    server = Server(folder, reload_seconds="0.05")
    with Load(server, body) as load:
        time.sleep(5)  # the log's library is loaded with the first rows
        before = server.memory()
        for number in range(50):
            content = (second, first)[number % 2]
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps(content))
            temporary.replace(path)
            version = content["champion"]["version"]
            until(lambda version=version: version in server.get("/readyz")[1])
    after = server.memory()
    server.stop()
    return (
        f"{load.failed} of {sum(load.statuses.values()):,} requests failed, {load.mixed} mixed; "
        f"memory {before:.0f} MB before the first swap, {after:.0f} MB after the last"
    )


def slow_clients(folder: Path, body: bytes) -> str:
    """200 clients that send a byte a second, for 20 s, beside four ordinary ones."""
    server = Server(folder, body_seconds="5")
    with Load(server, body) as load:
        time.sleep(3)
        alone, load.seconds = load.seconds, []
        head = (
            b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        answers = Counter[bytes]()
        for connection in slow:
            connection.sendall(head)
        for second in range(20):
            for connection in slow:
                try:
                    connection.sendall(body[second : second + 1])
                except OSError:
                    continue
            time.sleep(1)
        for connection in slow:
            connection.settimeout(1)
            try:
                answers[connection.recv(64).split(b" ")[1]] += 1
            except (OSError, IndexError):
                answers[b"none"] += 1
            connection.close()
    server.stop()
    statuses = ", ".join(f"{count} × {status.decode()}" for status, count in answers.items())
    return (
        f"they were answered {statuses}; the others' p99 {p99(alone):.1f} ms before, "
        f"{p99(load.seconds):.1f} ms with them, {load.failed} failed"
    )


def malformed(folder: Path, body: bytes) -> str:
    """100 000 requests that were damaged at random."""
    server = Server(folder)
    statuses: Counter[int] = Counter()
    sizes = []

    def send(seed: int) -> None:
        draw = random.Random(seed)
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for number in range(25_000):
            headers = {"content-type": "application/json"}
            client.request("POST", "/v1/predict", damaged(draw, body), headers)
            answer = client.getresponse()
            answer.read()
            statuses[answer.status] += 1
            if seed == 0 and number % 5000 == 4999:
                sizes.append(server.memory())

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alive = server.get("/readyz")[0] == 200
    server.stop()
    shown = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
    return f"{shown}; alive: {alive}; memory {sizes[0]:.0f} MB to {sizes[-1]:.0f} MB"


def worker_killed(folder: Path, body: bytes) -> str:
    """One of two workers killed under load, five times."""
    server = Server(folder, workers="2")
    with Load(server, body) as load:
        for _ in range(5):
            time.sleep(2)
            victim = json.loads(server.get("/healthz")[1])["worker"]
            os.kill(victim, signal.SIGKILL)
        time.sleep(3)
    code = server.stop()
    return (
        f"{load.statuses[0]} of {sum(load.statuses.values()):,} requests got no answer (those the "
        f"killed ones had in hand), no other failed: {load.failed == load.statuses[0]}; exit {code}"
    )


def contradicted(folder: Path, body: bytes) -> str:
    """Schemathesis makes requests of what the OpenAPI document allows and of what it forbids."""
    server = Server(folder)
    before = server.memory()
    address = f"http://127.0.0.1:{server.port}/openapi.json"
    command = ["schemathesis", "--no-color", "run", address, "--seed=1", "--max-examples=1000"]
    # What a picture or a series must be beyond its type is nothing that a schema can say.
    command += ["--continue-on-failure", "--exclude-checks=positive_data_acceptance"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    after = server.memory()
    server.stop()
    found = re.search(r"Test cases:\s+(.+)", done.stdout)
    if found is None:
        sys.exit(f"error: schemathesis did not finish:\n{done.stdout}{done.stderr}")
    return f"{found[1]}; exit {done.returncode}; memory {before:.0f} MB to {after:.0f} MB"


def soak(folder: Path, body: bytes, seconds: float = 300) -> str:
    """About 70 % of what four clients get without a pause, for minutes."""
    server = Server(folder)
    with Load(server, body) as load:
        time.sleep(5)
    rate = len(load.answered) / 5 / CLIENTS  # of one client
    pause = 1 / (0.7 * rate) - 1 / rate
    sizes = []
    with Load(server, body, pause=pause) as load:
        for _ in range(10):
            time.sleep(seconds / 10)
            sizes.append(server.memory())
    server.stop()
    lost = len(set(load.answered) - logged(folder))
    return (
        f"{seconds / 60:g} minutes, {len(load.answered):,} answers, {load.failed} failed, "
        f"{lost} not logged; memory "
        f"{sizes[1]:.0f} MB after a fifth of the time, {sizes[-1]:.0f} MB at the end"
    )


FAULTS: dict[str, Callable[[Path, bytes], str]] = {
    fault.__name__.replace("_", "-"): fault
    for fault in (
        killed,
        collector_killed,
        terminated,
        database_stopped,
        database_hangs,
        disk_full,
        swapped,
        slow_clients,
        malformed,
        contradicted,
        worker_killed,
        soak,
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--soak", type=float, default=300, metavar="SECONDS", help="default: 300")
    options = parser.parse_args()
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(unknown)}")
    if "contradicted" in (options.faults or FAULTS) and not shutil.which("schemathesis"):
        sys.exit("error: schemathesis is not there: pip install schemathesis")
    if not (PROJECT / "deployment" / "deployment.json").exists():
        sys.exit(f"error: {PROJECT} has no deployment; run: make demo")
    lines = ["| Fault | What happened |", "|---|---|"]
    for name in options.faults or FAULTS:
        with scratch() as folder:
            fault = partial(soak, seconds=options.soak) if name == "soak" else FAULTS[name]
            found = fault(folder, example(folder))
        what = (FAULTS[name].__doc__ or "").rstrip(".")
        lines.append(f"| {what} | {found} |")
        print(lines[-1], flush=True)
    if not options.faults:
        machine = (
            f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
        )
        head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        table = "\n".join([f"{time.strftime('%Y-%m-%d')}, {machine}.", "", *lines])
        text = f"{head}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"
        PAGE.write_text(text, encoding="utf-8")
    return 0


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder with a copy of the deployment; what the server printed is shown if it fails."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(PROJECT / "deployment", Path(name) / "deployment")
        yield Path(name)


def example(folder: Path) -> bytes:
    """A request's body that the champion can take."""
    deployment = folder / "deployment"
    champion = json.loads((deployment / "deployment.json").read_text())["champion"]
    path = deployment / champion["bundle"] / "example.json"
    return json.dumps(json.loads(path.read_text())).encode()


def logged(folder: Path) -> set[str]:
    """The request ids in the prediction log, once no collector writes it any more."""
    lock = folder / "predictions.db.spool" / "collector.lock"
    with lock.open() as file:  # a collector holds it
        fcntl.flock(file, fcntl.LOCK_EX)
    with closing(sqlite3.connect(folder / "predictions.db")) as connection:
        return {row[0] for row in connection.execute("SELECT request_id FROM predictions")}


def twin(deployment: Path, champion: dict[str, Any]) -> dict[str, Any]:
    """The champion's bundle once more, under another version."""
    import hashlib

    place = deployment / "bundles" / "twin"
    shutil.copytree(deployment / champion["bundle"], place)
    manifest = json.loads((place / "manifest.json").read_text())
    text = json.dumps({**manifest, "version": "twin"})
    (place / "manifest.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {**champion, "version": "twin", "bundle": "bundles/twin", "manifest_sha256": digest}


def damaged(draw: random.Random, body: bytes) -> bytes:
    """The body with a piece cut out, doubled, or overwritten."""
    start, length = draw.randrange(len(body)), draw.choice((1, 3, 20, 200))
    piece = body[start : start + length]
    return draw.choice(
        (
            body[:start] + body[start + length :],
            body[:start] + piece * draw.choice((2, 50)) + body[start:],
            body[:start] + draw.randbytes(length) + body[start + length :],
            body[:start],
            draw.choice(
                (b"null", b"[]", b'{"items":[{}]}', b'{"items":[null]}', b'{"items":1e999}')
            ),
            b'{"items":' + b"[" * draw.choice((10, 10_000)),
        )
    )


def services() -> ModuleType:
    """The project's scripts/services.py."""
    spec = importlib.util.spec_from_file_location("services", PROJECT / "scripts" / "services.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def group(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def p99(seconds: list[float]) -> float:
    """In milliseconds."""
    return statistics.quantiles(seconds, n=100)[-1] * 1000


def until(done: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("waited too long")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
