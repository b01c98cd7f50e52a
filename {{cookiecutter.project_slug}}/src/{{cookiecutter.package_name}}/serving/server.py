"""Run the server: listen, serve, drain on SIGTERM."""

import gc
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
import time

import uvicorn
from uvicorn.supervisors import Multiprocess

from ..bundle import deployment
from ..bundle.load import BadBundle, verify_bundle
from ..config import UserError
from .drain import request_seconds
from .logs import configure_logs, logger
from .metrics import MULTIPROC_VARIABLE
from .settings import as_environment, misspelt_variables
from .wiring import ServerSettings, beside_server

KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of common proxies, so that they close first


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or Ctrl-C, finish open requests, exit with code 0. Raises UserError when
    the address is not available or the deployment is damaged."""
    configure_logs(settings.log_level, "server")
    for warning in misspelt_variables(type(settings)):
        logger.warning(warning)
    _verify_deployment(settings)
    listener = _listen(settings)
    _raise_file_limit(settings.max_connections)
    os.environ |= as_environment(settings)
    # uvicorn raises the signal again after draining; this turns it into a normal end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        f"{__package__}.app:from_environment",
        factory=True,
        workers=settings.workers,
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        http=f"{__package__}.protocol:BoundedProtocol",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=request_seconds(settings),  # pyright: ignore[reportArgumentType]
    )
    with beside_server(settings):
        _run(config, listener, settings.drain_seconds)


def _run(config: uvicorn.Config, listener: socket.socket, drain_seconds: float) -> None:
    if config.workers == 1:
        uvicorn.Server(config).run([listener])
        return
    gc.enable()  # the workers load the application, not this process
    os.environ[MULTIPROC_VARIABLE] = tempfile.mkdtemp(prefix="metrics-")
    try:
        Supervisor(config, [listener], drain_seconds).run()
    finally:
        shutil.rmtree(os.environ[MULTIPROC_VARIABLE], ignore_errors=True)


class Supervisor(Multiprocess):
    """Starts the workers, replaces those that die, and ends all in time."""

    def __init__(
        self, config: uvicorn.Config, sockets: list[socket.socket], drain_seconds: float
    ) -> None:
        hang_up = signal.getsignal(signal.SIGHUP) if hasattr(signal, "SIGHUP") else None
        super().__init__(config, sockets)
        self._drain_seconds = drain_seconds
        if hang_up == signal.SIG_IGN:  # as nohup sets it
            signal.signal(signal.SIGHUP, hang_up)

    def handle_hup(self) -> None:
        self.handle_term()

    def join_all(self) -> None:
        # A worker ends in time by itself, unless it is stopped or hangs outside of Python.
        deadline = time.monotonic() + self._drain_seconds + 0.5
        for worker in self.processes:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                logger.error(
                    "worker killed: not ended in time", extra={"fields": {"worker": worker.pid}}
                )
                worker.process.kill()
                worker.process.join()


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


def _raise_file_limit(connections: int) -> None:
    """Allow this process and its workers as many open files as connections, where possible."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = connections + 256  # files, the log, models
        if soft != resource.RLIM_INFINITY and soft < wanted:
            wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
