"""Run the collector beside a server, as a process of its own, and start it again when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..store import spool
from .logs import logger
from .metrics import MULTIPROC_VARIABLE
from .settings import as_environment
from .wiring import ServerSettings, spool_folder

RESTART_SECONDS = (0.5, 1, 2, 5, 10, 30)  # before it is started again; the last one recurs
STEADY_SECONDS = 60.0  # after which an end is no longer one in a row
# Of drain_seconds, for the collector to finish (requests: REQUEST_SHARE). What it does not manage
# stays in the spool.
STOP_SHARE = 0.2


@contextmanager
def running_collector(settings: ServerSettings) -> Iterator[None]:
    """Run a collector; at the end it writes what is in the spool, if that takes a moment."""
    ended = threading.Event()
    current: list[subprocess.Popen[bytes]] = []
    variables = {**os.environ, **as_environment(settings)}
    variables["APP_SPOOL_DIR"] = str(spool_folder(settings))
    variables.pop(MULTIPROC_VARIABLE, None)
    with suppress(OSError, KeyError, UnicodeDecodeError):
        address = Path(os.environ["APP_DATABASE_URL_FILE"]).read_text(encoding="utf-8").strip()
        if address == settings.database_url:  # it reads the file itself, again and again
            del variables["APP_DATABASE_URL"]

    def start() -> subprocess.Popen[bytes]:
        package = __package__.split(".")[0] if __package__ else ""
        # It ends when its standard input does, so also when this process is killed. Its own
        # session: a Ctrl-C is for this process, which then tells it to end.
        return subprocess.Popen(
            [sys.executable, "-m", f"{package}.cli", "collect", "--with-server"],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def keep() -> None:
        failures = 0
        while not ended.is_set():
            started = time.monotonic()
            current[:] = [start()]
            code = current[0].wait()
            if ended.is_set():
                return
            failures = 1 if time.monotonic() - started > STEADY_SECONDS else failures + 1
            pause = RESTART_SECONDS[min(failures, len(RESTART_SECONDS)) - 1]
            fields = {"code": code, "seconds": pause}
            logger.error("the collector ended and is started again", extra={"fields": fields})
            ended.wait(pause)

    keeper = threading.Thread(target=keep, name="collector", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        for process in current:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(STOP_SHARE * settings.drain_seconds)
            except subprocess.TimeoutExpired:  # a kill costs it nothing
                process.kill()
                process.wait()
        if rows := spool.waiting(spool_folder(settings)).rows:
            fields = {"rows": rows, "folder": str(spool_folder(settings))}
            logger.warning(
                "predictions wait in the spool; the next start or `collect` logs them",
                extra={"fields": fields},
            )
