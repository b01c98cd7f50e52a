"""Real processes: the end comes in time, whatever hangs, and nobody is left over."""

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.serving.drain import DaemonThreads
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings

from .servers import PATIENCE, processes, running, until
from .test_workers import begun_request, end_during_a_request, ended, workers

pytestmark = pytest.mark.skipif(
    not Path("/proc").exists(), reason="processes are looked at in /proc"
)
PLATFORM_SECONDS = 10  # docker stop, Cloud Run; Kubernetes waits for 30
LONG = {"drain_seconds": 20 * PATIENCE, "lame_duck_seconds": 10 * PATIENCE}  # no test waits for it
HANGING = """
import asyncio, sys
from {package}.serving import app
create = app.create_observer

def create_hanging(*arguments):
    observer = create(*arguments)
    observer.stop = lambda seconds: asyncio.sleep(1000)
    return observer

app.create_observer = create_hanging
from {package}.cli import main
sys.exit(main(["serve"]))
"""


def test_default_drain_ends_before_platforms_kill() -> None:
    settings = ServerSettings()
    assert settings.drain_seconds + 1 < PLATFORM_SECONDS  # half a second for the supervisor
    assert settings.lame_duck_seconds < settings.drain_seconds


def test_lame_duck_as_long_as_the_drain_is_refused() -> None:
    with pytest.raises(UserError, match="less than drain_seconds"):
        load_settings(ServerSettings, None, ["drain_seconds=5", "lame_duck_seconds=5"])


@pytest.mark.parametrize("count", [1, 2])
def test_lame_duck_answers_requests_and_is_not_ready(
    deployment: Path, example: dict[str, Any], count: int
) -> None:
    settings: dict[str, Any] = {"workers": count, **LONG}
    with running(deployment, **settings) as server:
        pids = workers(server, count)
        server.process.send_signal(signal.SIGTERM)
        reasons: set[int] = set()

        def all_know() -> bool:
            answer = server.send("/readyz")
            if answer.status == 503 and answer.json["reason"] == "the server is ending":
                reasons.add(answer.json["worker"])
            return reasons == pids

        until(all_know)
        assert server.send("/v1/predict", example).status == 200
        assert server.send("/healthz").status == 200
        for pid in pids:  # as systemd does; the lame duck goes on
            os.kill(pid, signal.SIGTERM)
        assert server.send("/readyz").status == 503
        for pid in pids:  # Ctrl-C ends it
            os.kill(pid, signal.SIGINT)
        assert ended(server) == 0


@pytest.mark.parametrize("count", [1, 2])
def test_sighup_drains_like_sigterm(deployment: Path, example: dict[str, Any], count: int) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    try:
        with running(deployment, workers=count) as server:
            workers(server, count)
            end_during_a_request(server, example, signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("count", [1, 2])
def test_nohup_keeps_the_server_alive(deployment: Path, count: int) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the server inherits it
    try:
        with running(deployment, workers=count) as server:
            for pid in workers(server, count) | {server.process.pid}:
                os.kill(pid, signal.SIGHUP)
            assert workers(server, count)
            server.process.send_signal(signal.SIGTERM)
            assert ended(server) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("lame_duck", [0, LONG["lame_duck_seconds"]])
def test_workers_end_when_their_supervisor_is_killed(deployment: Path, lame_duck: int) -> None:
    settings: dict[str, Any] = {"workers": 2, **LONG, "lame_duck_seconds": lame_duck}
    with running(deployment, **settings) as server:
        workers(server)
        server.process.kill()
        until(lambda: not processes(server))
        port = server.url.rpartition(":")[2]
        with running(deployment, port=port) as again:  # the port is free
            assert again.send("/healthz").status == 200


def test_stopped_worker_does_not_keep_the_supervisor(deployment: Path) -> None:
    with running(deployment, workers=2, drain_seconds=1) as server:
        os.kill(min(workers(server)), signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert ended(server) == 0


def test_request_that_outlasts_the_drain_is_cut_off_with_503_and_told(deployment: Path) -> None:
    with running(deployment, drain_seconds=3) as server:
        with begun_request(server.url, 2) as connection:
            connection.sendall(b"{")
            server.process.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert ended(server) == 0
        messages = [line["message"] for line in server.lines()]
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"ending"' in answer
    assert "Cancel 1 running task(s), timeout graceful shutdown exceeded" in messages
    assert "Exception in ASGI application" not in str(messages)


def test_hanging_end_is_forced_and_told(deployment: Path) -> None:
    code = HANGING.format(package=cli.__package__)
    with running(deployment, code, drain_seconds=1) as server:
        server.process.send_signal(signal.SIGTERM)
        assert ended(server) == 1
        last = server.lines()[-1]
    assert last["message"] == "not ended in time, ending now"
    assert last["level"] == "error"


def test_hanging_call_delays_neither_other_calls_nor_the_end() -> None:
    release = threading.Event()

    async def main() -> list[int]:
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        hanging = [asyncio.create_task(asyncio.to_thread(release.wait, 60)) for _ in range(50)]
        await asyncio.sleep(0)
        results = [await asyncio.to_thread(lambda place=place: place) for place in range(3)]
        for task in hanging:
            task.cancel()
        return results

    try:
        assert asyncio.run(main()) == [0, 1, 2]
        hanging = [thread for thread in threading.enumerate() if thread.name == "call"]
        assert len(hanging) >= 50, "it waited for them"
        assert all(thread.daemon for thread in hanging)
    finally:
        release.set()


def test_error_in_a_thread_reaches_its_caller() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        await asyncio.to_thread(int, "no number")

    with pytest.raises(ValueError, match="no number"):
        asyncio.run(main())
