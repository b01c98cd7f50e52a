"""The Unix socket by which a server passes feedback on to the collector: JSON, a line each way."""

import asyncio
import json
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SOCKET = "collector.sock"
OPEN_FILES = Path("/proc/self/fd")  # of Linux
LONGEST_PATH = 100  # bytes that a socket's name may have everywhere
START_SECONDS = 10.0  # that feedback waits for a collector which is being started
RETRY_SECONDS = 0.1
ANSWER_SECONDS = 5.0
IDLE_SECONDS = 30.0  # that the collector waits for a line


async def ask(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Send feedback to the collector, once it is there, and return its answer.

    Raises OSError if there is no collector, or if it does not answer in time.
    """
    latest = time.monotonic() + START_SECONDS
    while True:
        try:
            with _reachable(folder) as path:
                reader, writer = await asyncio.open_unix_connection(path)
            break
        except OSError:
            if time.monotonic() > latest:
                raise
            await asyncio.sleep(RETRY_SECONDS)
    async with asyncio.timeout(ANSWER_SECONDS):
        try:
            writer.write(json.dumps(content).encode() + b"\n")
            await writer.drain()
            if not (line := await reader.readline()):
                raise ConnectionError("the collector ended")
            return json.loads(line)
        finally:
            writer.close()


class FeedbackServer:
    """Answer feedback with `answer`, each connection in a thread, while the context is open."""

    def __init__(self, folder: Path, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        class Handler(socketserver.StreamRequestHandler):
            timeout = IDLE_SECONDS

            def handle(self) -> None:
                if line := self.rfile.readline():
                    content = json.dumps(answer(json.loads(line))).encode() + b"\n"
                    with suppress(ConnectionError):  # the server has ended or waits no longer
                        self.wfile.write(content)

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            block_on_close = False

        self._path = folder / SOCKET
        self._path.unlink(missing_ok=True)  # of a collector that was killed
        with _reachable(folder) as path:
            self._server = Server(path, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


@contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """Yield the socket's path, in a short form where it is too long for a socket's name."""
    path = str(folder / SOCKET)
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    if not OPEN_FILES.exists():  # macOS
        with TemporaryDirectory() as short:
            link = Path(short, "spool")
            link.symlink_to(folder.absolute())
            yield str(link / SOCKET)
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        yield f"{OPEN_FILES}/{number}/{SOCKET}"
    finally:
        os.close(number)
