"""Run the server: listen, answer, drain on SIGTERM."""

import importlib.util
import signal
import sys

import uvicorn

from .app import create_app
from .logs import configure, logger
from .settings import Serving, misspelt


def serve(settings: Serving) -> None:
    """Serve until SIGTERM or Ctrl-C; open requests are answered first, then exit code 0."""
    configure(settings.log_level)
    for warning in misspelt():
        logger.warning(warning)
    # uvicorn raises the signal again after draining; this turns it into a normal end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
