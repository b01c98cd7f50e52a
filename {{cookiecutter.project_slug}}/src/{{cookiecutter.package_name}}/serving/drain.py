"""End in time: first readiness says no, then open requests are finished, then the log is written.

`docker stop`, Kubernetes and Cloud Run send SIGTERM and kill what is left after 10 or 30 seconds.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import Any

from .logs import logger
from .settings import CoreServerSettings

SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
]
REQUEST_SHARE = 0.7  # of the time after the lame duck, for open requests; the log has the rest
END_SECONDS = 0.3  # for uvicorn and Python to end, once all is done


class Drain:
    """The end of a server's process, at most `drain_seconds` after the first signal."""

    def __init__(self, settings: CoreServerSettings) -> None:
        self.settings = settings
        self.deadline: float | None = None  # by time.monotonic(); None until the end has begun

    def handle_signals(self) -> None:
        """Take the signals over from uvicorn; called in the event loop, once uvicorn has them."""
        stop = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(stop):
            return  # without uvicorn, in tests
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            # systemd signals workers and supervisor, and that the workers: SIGTERM may come twice.
            at_once = number == signal.SIGINT or _is_orphan()
            if self.deadline is None:
                self.begin()
                timer = threading.Timer(self.settings.drain_seconds, self._force)
                timer.daemon = True
                timer.start()
                delay = 0 if at_once else self.settings.lame_duck_seconds
                loop.call_soon_threadsafe(loop.call_later, delay, stop, signal.SIGTERM, None)
            elif at_once:
                stop(number, frame)

        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets SIGHUP
                signal.signal(number, handle)

    def begin(self) -> None:
        """Start to count the time."""
        if self.deadline is None:
            self.deadline = time.monotonic() + self.settings.drain_seconds

    def seconds_left(self) -> float:
        """Return the seconds for what is left to do, once the requests are finished."""
        self.begin()
        assert self.deadline is not None
        return max(0.0, self.deadline - time.monotonic() - END_SECONDS)

    def _force(self) -> None:
        threads = ", ".join(thread.name for thread in threading.enumerate())
        fields = {"drain_seconds": self.settings.drain_seconds, "threads": threads}
        logger.error("not ended in time, ending now", extra={"fields": fields})
        os._exit(1)


def request_seconds(settings: CoreServerSettings) -> float:
    """Return how long open requests may take, after the lame duck."""
    return REQUEST_SHARE * max(
        0.0, settings.drain_seconds - settings.lame_duck_seconds - END_SECONDS
    )


def end_with_supervisor() -> None:
    """End this worker when its supervisor is gone, even by SIGKILL."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:  # a server without workers
        return

    def watch() -> None:
        supervisor.join()
        logger.error("the supervisor is gone, ending")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()


def _is_orphan() -> bool:
    """Return whether the supervisor is gone: then the port must become free soon."""
    supervisor = multiprocessing.parent_process()
    return supervisor is not None and not supervisor.is_alive()


class DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a daemon thread of its own.

    As the event loop's default executor it keeps apart what `asyncio.to_thread` runs: a call that
    hangs takes no place from the others, and the process can end without it.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="call", daemon=True).start()
        return future
