"""Run the server: listen, serve, drain on SIGTERM."""

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
from .logs import configure_logs, logger
from .metrics import MULTIPROC_VARIABLE
from .settings import as_environment, misspelt_variables
from .wiring import ServerSettings, beside_server

KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of common proxies, so that they close first


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or Ctrl-C, finish open requests, exit with code 0. Raises UserError when
    the address is not available or the deployment is damaged."""
    configure_logs(settings.log_level)
    for warning in misspelt_variables(type(settings)):
        logger.warning(warning)
    _verify_deployment(settings)
    listener = _listen(settings)
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
    with beside_server(settings):
        _run(config, listener)


def _run(config: uvicorn.Config, listener: socket.socket) -> None:
    if config.workers == 1:
        uvicorn.Server(config).run([listener])
        return
    gc.enable()  # the workers load the application, not this process
    os.environ[MULTIPROC_VARIABLE] = tempfile.mkdtemp(prefix="metrics-")
    try:
        Multiprocess(config, [listener]).run()
    finally:
        shutil.rmtree(os.environ[MULTIPROC_VARIABLE], ignore_errors=True)


def _verify_deployment(settings: ServerSettings) -> None:
    """Refuse to start on a damaged deployment; a missing one may still arrive."""
    if not (settings.deployment_dir / deployment.DEPLOYMENT).exists():
        return
    try:
        deployed = deployment.read_deployment(settings.deployment_dir)
        for ref in filter(None, (deployed.champion, deployed.challenger)):
            path = deployment.bundle_path(settings.deployment_dir, ref)
            verify_bundle(path, ref.manifest_sha256)
    except BadBundle as error:
        raise UserError(str(error)) from None


def _listen(settings: ServerSettings) -> socket.socket:
    """Open the socket that all workers accept on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        raise UserError(f"{settings.host}:{settings.port}: cannot listen: {reason}") from None
    listener.set_inheritable(True)
    url = f"http://{settings.host}:{listener.getsockname()[1]}"
    logger.info("listening", extra={"fields": {"url": url}})
    return listener
