"""Run the server: listen, answer, drain on SIGTERM."""

import gc
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile

import uvicorn
from uvicorn.supervisors import Multiprocess

from ..bundle import deployment
from ..bundle.load import BadBundle, verify_bundle
from ..config import UserError
from .logs import configure, logger
from .metrics import MULTIPROC_VARIABLE
from .settings import ServerSettings, as_environment, misspelt_variables

SWITCH_SECONDS = 0.0002  # that a thread may keep the event loop from its turn; usual are 0.005
KEEP_ALIVE_SECONDS = 75  # longer than the minute of usual proxies, so that they close first


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or Ctrl-C; open requests are answered first, then exit code 0.

    UserError when the address cannot be had or what is deployed is damaged.
    """
    configure(settings.log_level)
    for warning in misspelt_variables():
        logger.warning(warning)
    _check(settings)
    listening = _listen(settings)
    os.environ |= as_environment(settings)
    # uvicorn raises the signal again after draining; this turns it into a normal end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        f"{__package__}.app:from_environment",
        factory=True,
        workers=settings.workers,
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    if settings.workers == 1:
        uvicorn.Server(config).run([listening])
        return
    gc.enable()  # the workers load the application, not this process
    os.environ[MULTIPROC_VARIABLE] = tempfile.mkdtemp(prefix="metrics-")
    try:
        Multiprocess(config, [listening]).run()
    finally:
        shutil.rmtree(os.environ[MULTIPROC_VARIABLE], ignore_errors=True)


def _check(settings: ServerSettings) -> None:
    """Refuse to start on a damaged deployment; a missing one may come yet."""
    if not (settings.deployment_dir / deployment.DEPLOYMENT).exists():
        return
    try:
        found = deployment.read_deployment(settings.deployment_dir)
        for installed in (found.champion, found.challenger):
            if installed is not None:
                place = deployment.bundle_path(settings.deployment_dir, installed)
                verify_bundle(place, installed.manifest_sha256)
    except BadBundle as error:
        raise UserError(str(error)) from None


def _listen(settings: ServerSettings) -> socket.socket:
    """The socket that all workers accept on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        reason = error.strerror or str(error)
        raise UserError(f"{settings.host}:{settings.port}: cannot listen there: {reason}") from None
    found.set_inheritable(True)
    port = found.getsockname()[1]
    logger.info("listening", extra={"fields": {"url": f"http://{settings.host}:{port}"}})
    return found
