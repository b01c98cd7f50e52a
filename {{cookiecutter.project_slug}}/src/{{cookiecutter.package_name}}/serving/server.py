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
from contextlib import suppress
from pathlib import Path

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

from ..bundle import deployment
from ..bundle.load import BadBundle, verify_bundle
from ..config import UserError
from ..files import write_text
from .drain import request_seconds
from .logs import configure_logs, logger
from .memory import memory_limit, memory_warning
from .metrics import MULTIPROC_VARIABLE, RESTARTS
from .puller import pulling
from .settings import as_environment, misspelt_variables
from .wiring import ServerSettings, beside_server

KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of common proxies, so that they close first


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or Ctrl-C, finish open requests, exit with code 0. Raises UserError when
    the address is not available or the deployment is damaged."""
    configure_logs(settings.log_level, "server")
    for warning in misspelt_variables(type(settings)):
        logger.warning(warning)
    # A pulled deployment is repaired by pulling it again.
    bundles = [] if settings.deployment_url else _verify_deployment(settings)
    if warning := memory_warning(memory_limit(), settings.workers, bundles):
        logger.warning(warning)
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
        proxy_headers=False,  # app.py reads them, off the predict path
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=request_seconds(settings),  # pyright: ignore[reportArgumentType]
    )
    with pulling(settings), beside_server(settings):
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
        self._restarts = 0
        self._write_restarts()
        if hang_up == signal.SIG_IGN:  # as nohup sets it
            signal.signal(signal.SIGHUP, hang_up)

    def keep_subprocess_alive(self) -> None:
        before = list(self.processes)
        super().keep_subprocess_alive()
        for old, new in zip(before, self.processes, strict=True):
            if old is not new:
                self._restarts += 1
                self._write_restarts()
                mark_process_dead(old.pid, os.environ[MULTIPROC_VARIABLE])
                # Also -9: killed by the kernel when memory runs out, or here because it hung.
                fields = {"worker": old.pid, "exit_code": old.exitcode, "restarts": self._restarts}
                logger.error("worker died and was replaced", extra={"fields": fields})

    def _write_restarts(self) -> None:
        """Leave the count where the workers, which answer /metrics, read it."""
        write_text(Path(os.environ[MULTIPROC_VARIABLE], RESTARTS), str(self._restarts))

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


def _verify_deployment(settings: ServerSettings) -> list[Path]:
    """Return the deployed bundles; refuse to start on damaged ones. Missing ones may arrive."""
    bundles: list[Path] = []
    if not (settings.deployment_dir / deployment.DEPLOYMENT).exists():
        return bundles
    try:
        deployed = deployment.read_deployment(settings.deployment_dir)
        for ref in filter(None, (deployed.champion, deployed.challenger)):
            bundles.append(deployment.bundle_path(settings.deployment_dir, ref))
            verify_bundle(bundles[-1], ref.manifest_sha256)
    except BadBundle as error:
        raise UserError(str(error)) from None
    return bundles


def _raise_file_limit(connections: int) -> None:
    """Allow this process and its workers as many open files as connections, where possible."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = connections + 256  # files, the log, models
        if soft != resource.RLIM_INFINITY and soft < wanted:
            wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            with suppress(ValueError, OSError):  # macOS allows fewer than it says
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(settings: ServerSettings) -> socket.socket:
    """Open the socket that all workers accept on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    if sys.platform != "win32":  # where it would let two servers listen at one address
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
