"""Parse large requests in a process of their own, which starts with the first of them.

A JSON parser holds the interpreter's lock until it is done: 4 MB of numbers for 30 ms, of nested
lists for seconds. In the server's process everybody would wait, whatever thread it ran in.
"""

import asyncio
import pickle
import subprocess
import sys
import threading

from ..task.contract import Item
from .context import RequestError
from .logs import logger
from .parser import LENGTH
from .scheduler import Overloaded

# Seconds that a parser needs for each of these characters, about: numbers, texts, lists, keys
COSTS = {b",": 5e-8, b'"': 1e-7, b"[": 1e-6, b":": 1e-6, b"\\": 1e-8}
LARGE_SECONDS = 0.004  # requests for predictions that need longer go to the other process
MAX_PARSE_SECONDS = 0.02  # of what the server itself parses; what needs longer is refused
MAX_LARGE_SECONDS = 0.5  # of what the other process parses or has waiting


def parse_seconds(body: bytes) -> float:
    """Estimate how long a JSON parser needs."""
    if len(body) * max(COSTS.values()) <= LARGE_SECONDS:
        return 0.0
    return sum(seconds * body.count(character) for character, seconds in COSTS.items())


def refuse_slow(seconds: float, limit: float = MAX_PARSE_SECONDS) -> None:
    """Raise RequestError if parsing would take longer than `limit`, seconds."""
    if seconds > limit:
        message = "has too many values, texts, lists or keys for one request: send fewer items"
        raise RequestError(413, ["body"], message, "too_slow")


class ParserProcess:
    """The other process; one request at a time has it."""

    def __init__(self, max_items: int) -> None:
        self._command = [sys.executable, "-m", f"{__package__}.parser", str(max_items)]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._waiting = 0.0  # seconds of work

    async def parse(self, body: bytes, seconds: float) -> list[Item]:
        """Return the items of a request that takes so long to parse.

        Raises RequestError for an invalid one, Overloaded when too much waits already.
        """
        refuse_slow(seconds, MAX_LARGE_SECONDS)
        if self._waiting + seconds > MAX_LARGE_SECONDS:
            raise Overloaded
        self._waiting += seconds
        try:
            return await asyncio.to_thread(self._parse, body)
        finally:
            self._waiting -= seconds

    def close(self) -> None:
        """End the process, whatever it parses."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()  # closes the pipes
            self._process = None

    def _parse(self, body: bytes) -> list[Item]:
        with self._lock:
            answer = self._exchange(body)
        # Our own process wrote these pickles. One by one: between them other threads go on.
        problem, items = pickle.loads(answer)  # noqa: S301  # nosec B301
        if problem is not None:
            raise RequestError.invalid(*problem)
        return [pickle.loads(item) for item in items]  # noqa: S301  # nosec B301

    def _exchange(self, body: bytes) -> bytes:
        process = self._process
        if process is None or process.poll() is not None:
            self.close()
            # It ends when its standard input does, so also when this process is killed.
            process = self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            fields = {"parser": process.pid}
            logger.info("another process parses large requests", extra={"fields": fields})
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(LENGTH.pack(len(body)) + body)
        process.stdin.flush()
        (length,) = LENGTH.unpack(process.stdout.read(LENGTH.size))
        return process.stdout.read(length)
