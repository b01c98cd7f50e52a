"""Real PostgreSQL and Prometheus from Debian's packages, for tests and for trying things out.

    python scripts/services.py install              fetch what is missing, without root
    python scripts/services.py postgres             run a database until Ctrl-C, print its URL
    python scripts/services.py prometheus [CONFIG]  run Prometheus until Ctrl-C, print its URL

What the system has already is used. The rest is unpacked into a cache folder of this project and
not installed: nothing of the system changes. Every process that is started here listens on
127.0.0.1 only and ends with the process that started it, even when that one is killed.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

PROJECT = Path(__file__).resolve().parents[1]
INSTALL = "python scripts/services.py install"
PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus", "postgres": "postgresql"}
USER, PASSWORD = "app", "of-a-test-database"


class Missing(Exception):
    """A program is not there; the message says how to get it."""


def cache() -> Path:
    """Where packages are unpacked."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / PROJECT.name / "services"


def find(program: str) -> Path | None:
    """The program, of the system or of the cache; the newest if there are several."""
    if found := shutil.which(program):
        return Path(found).resolve()
    places = [
        path
        for root in (Path("/"), cache())
        for folder in ("usr/bin", "usr/lib/postgresql/*/bin")
        for path in root.glob(f"{folder}/{program}")
    ]
    return max(
        places, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))], default=None
    )


def promtool() -> Path | None:
    """Prometheus' tool that checks its configuration and tests its rules, if it is there."""
    return find("promtool")


def need(program: str) -> Path:
    """The program, or Missing."""
    if sys.platform != "linux":
        raise Missing(f"{program}: these services run on Linux only, this is {sys.platform}")
    found = find(program)
    if found is None:
        raise Missing(f"{program} is not there; on Debian and Ubuntu this fetches it: {INSTALL}")
    return found


def install() -> list[str]:
    """Fetch and unpack the packages whose programs are missing, with what they depend on."""
    wanted = sorted({package for program, package in PACKAGES.items() if not find(program)})
    if not wanted:
        return []
    if sys.platform != "linux" or not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Missing(f"only Debian and Ubuntu are known here; install yourself: {wanted}")
    plan = ["apt-get", "--simulate", "--no-install-recommends", "install", *wanted]
    listed = _run(plan)
    if listed.returncode and os.geteuid() == 0:  # lists of a fresh container are empty
        _run(["apt-get", "update"])
        listed = _run(plan)
    if listed.returncode:
        raise Missing(f"{listed.stderr.strip()}\nare apt's lists there? sudo apt-get update")
    found = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", listed.stdout, re.M)
    exact = [f"{name}={version}" for name, version in found]
    with tempfile.TemporaryDirectory() as folder:
        done = _run(["apt-get", "download", *exact], cwd=folder)
        if done.returncode:
            raise Missing(f"apt-get download failed: {done.stderr.strip()}")
        cache().mkdir(parents=True, exist_ok=True)
        for package in sorted(Path(folder).glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(cache())], check=True)
    return exact


@contextmanager
def postgres(folder: Path | None = None) -> Iterator[str]:
    """A fresh database server; yields its URL. Its log is FOLDER/postgres.log."""
    with Postgres(folder) as database:
        yield database.url


class Postgres:
    """A database server that can be stopped and started again, with the data kept.

    PostgreSQL refuses to run as root: then it runs as `postgres` or `nobody`. Such a user cannot
    enter a test's folder, so the data are in a folder of their own, removed at the end.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.program = need("postgres")
        self.home = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.log = (folder or self.home) / "postgres.log"
        self.port = free_port()
        self.url = f"postgresql://{USER}:{quote(PASSWORD)}@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _other_user()

    def __enter__(self) -> "Postgres":
        try:
            password = self.home / "password"
            password.write_text(PASSWORD)
            if self._user:
                for path in (self.home, password):
                    os.chown(path, int(self._user[1]), int(self._user[3]))
            make = [str(self.program.with_name("initdb")), "-D", str(self.home / "data")]
            make += ["-U", USER, "--auth=scram-sha-256", f"--pwfile={password}"]
            make += ["-E", "UTF8", "--no-locale", "--no-sync"]
            done = _run(self._as_user(make, "KILL"), cwd=self.home, env=_libraries())
            if done.returncode:
                raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.home, ignore_errors=True)

    def start(self) -> None:
        """Start on the same port; returns when connections are accepted."""
        command = [str(self.program), "-D", str(self.home / "data"), "-h", "127.0.0.1"]
        command += ["-p", str(self.port), "-k", str(self.home)]
        for setting in ("fsync=off", "jit=off", "shared_buffers=16MB", "max_connections=50"):
            command += ["-c", setting]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._as_user(command, "QUIT"),
                cwd=self.home,
                env=_libraries(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ready = self.home / "data" / "postmaster.pid"
        _until(
            lambda: ready.exists() and ready.read_text().rstrip().endswith("ready"),
            self._process,
            self.log,
        )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: SIGINT ends connections in order, SIGQUIT at once, as a crash would."""
        process, self._process = self._process, None
        _end(process, how)

    def _as_user(self, command: list[str], last: str) -> list[str]:
        return ["setpriv", *self._user, "--pdeathsig", last, "--", *command]


@contextmanager
def prometheus(config: Path) -> Iterator[str]:
    """Prometheus with this configuration; yields its address. It keeps nothing."""
    program = need("prometheus")
    with tempfile.TemporaryDirectory(prefix="prometheus-") as folder:
        port, log = free_port(), Path(folder) / "log"
        command = ["setpriv", "--pdeathsig", "KILL", "--", str(program)]
        command += [f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        url = f"http://127.0.0.1:{port}"
        try:
            _until(lambda: _answers(f"{url}/-/ready"), process, log)
            yield url
        finally:
            _end(process, signal.SIGTERM)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _end(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    if process is None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(how)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            _end(process, signal.SIGKILL)
            raise RuntimeError(f"{process.args} did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _other_user() -> list[str]:
    """What makes setpriv change to a user who is not root, if we are root."""
    if os.geteuid():
        return []
    import pwd  # not on every system

    known = {user.pw_name: user for user in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    return ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]


def _libraries() -> dict[str, str]:
    """The environment, with the libraries of the cache, which are those that the system lacks."""
    folders = [str(path) for path in cache().glob("usr/lib/*-linux-*")]
    given = os.environ.get("LD_LIBRARY_PATH")
    paths = ":".join([*([given] if given else []), *folders])
    return {**os.environ, "LC_ALL": "C", **({"LD_LIBRARY_PATH": paths} if paths else {})}


def _run(
    command: list[str], cwd: Path | str | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def main() -> int:
    lines = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog=lines[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("install", "postgres", "prometheus"))
    config = PROJECT / "deploy" / "prometheus" / "prometheus.yml"
    parser.add_argument("config", nargs="?", type=Path, default=config, help="of Prometheus")
    options = parser.parse_args()
    try:
        if options.what == "install":
            for package in install():
                print(f"unpacked: {package}")
            for program in PACKAGES:
                print(f"{program}: {need(program)}")
            return 0
        service = postgres() if options.what == "postgres" else prometheus(options.config)
        with service as url:
            print(f"{url}   (Ctrl-C ends it)", flush=True)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except Missing as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
