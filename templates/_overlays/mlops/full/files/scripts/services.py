"""Run PostgreSQL, PgBouncer and Prometheus from Debian's packages, for tests and for experiments.

    python scripts/services.py install              download what is missing, without root
    python scripts/services.py postgres             run a database until Ctrl-C, print its URL
    python scripts/services.py prometheus [CONFIG]  run Prometheus until Ctrl-C, print its URL

Programs that the system has are used. The others are unpacked into a cache folder of this project,
not installed: the system does not change. Every process listens on 127.0.0.1 only and ends with
the process that started it, even if that one is killed.
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
from urllib.parse import quote, urlsplit

PROJECT = Path(__file__).resolve().parents[1]
INSTALL = "python scripts/services.py install"
PACKAGES = {
    "pgbouncer": "pgbouncer",
    "postgres": "postgresql",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
USER, PASSWORD = "app", "of-a-test-database"  # pragma: allowlist secret


class Missing(Exception):
    """A program is missing; the message says how to get it."""


def cache() -> Path:
    """Return the folder that packages are unpacked into."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / PROJECT.name / "services"


def find(program: str) -> Path | None:
    """Find a program in the system, then in the cache; the newest if there are several."""
    if on_path := shutil.which(program):
        return Path(on_path).resolve()
    candidates = [
        path
        for root in (Path("/"), cache())
        for folder in ("usr/bin", "usr/sbin", "usr/lib/postgresql/*/bin")
        for path in root.glob(f"{folder}/{program}")
    ]
    return max(
        candidates, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))], default=None
    )


def promtool() -> Path | None:
    """Find the tool that checks Prometheus' configuration and tests its rules."""
    return find("promtool")


def need(program: str) -> Path:
    """Find a program. Raises Missing."""
    if sys.platform != "linux":
        raise Missing(f"{program}: these services run on Linux only, this is {sys.platform}")
    path = find(program)
    if path is None:
        raise Missing(f"{program} is not installed; on Debian and Ubuntu, run: {INSTALL}")
    return path


def install() -> list[str]:
    """Download and unpack the packages whose programs are missing, with their dependencies."""
    packages = sorted({package for program, package in PACKAGES.items() if not find(program)})
    if not packages:
        return []
    if sys.platform != "linux" or not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Missing(
            f"only Debian and Ubuntu are supported here; install these yourself: {packages}"
        )
    plan = ["apt-get", "--simulate", "--no-install-recommends", "install", *packages]
    listed = _run(plan)
    if listed.returncode and os.geteuid() == 0:  # a fresh container has no package lists
        _run(["apt-get", "update"])
        listed = _run(plan)
    if listed.returncode:
        raise Missing(f"{listed.stderr.strip()}\nare the package lists there? sudo apt-get update")
    planned = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", listed.stdout, re.M)
    exact = [f"{name}={version}" for name, version in planned]
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
    """Run a fresh database server; yields its URL. The log is FOLDER/postgres.log."""
    with Postgres(folder) as database:
        yield database.url


class Postgres:
    """A database server that can be stopped and started again without losing its data.

    PostgreSQL refuses to run as root, so root runs it as `postgres` or `nobody`. These users cannot
    enter a test's folder: the data is in a temporary folder, removed at the end.
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
        """Start on the same port; return when it accepts connections."""
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
        """Stop: SIGINT closes connections cleanly, SIGQUIT at once like a crash."""
        process, self._process = self._process, None
        _end(process, how)

    def processes(self) -> list[int]:
        """List the ids of the server and of its workers, from /proc."""
        first = self._process.pid if self._process else 0
        found = [first]
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # ended meanwhile
                if int(path.read_text().rpartition(")")[2].split()[1]) == first:
                    found.append(int(path.parent.name))
        return found

    def _as_user(self, command: list[str], last: str) -> list[str]:
        return ["setpriv", *self._user, "--pdeathsig", last, "--", *command]


@contextmanager
def pgbouncer(url: str) -> Iterator[str]:
    """Pool connections to a PostgreSQL, a transaction at a time; yields the pool's URL."""
    program, parts = need("pgbouncer"), urlsplit(url)
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        port, log, config = free_port(), Path(folder) / "log", Path(folder) / "pgbouncer.ini"
        name = parts.path.lstrip("/")
        server = f"host=127.0.0.1 port={parts.port} user={USER} password={PASSWORD}"
        config.write_text(
            f"[databases]\n{name} = {server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
        )
        # It refuses to run as root, and another user may not enter root's cache.
        Path(folder).chmod(0o755)
        for path in (program, *cache().glob("usr/lib/*-linux-*/libcares.so.2")):
            shutil.copy(path, folder)
        command = ["setpriv", *_other_user(), "--pdeathsig", "KILL", "--"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, f"{folder}/{program.name}", str(config)],
                env={**os.environ, "LD_LIBRARY_PATH": folder},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            _until(lambda: b"process up" in log.read_bytes(), process, log)
            yield f"postgresql://{USER}:{quote(PASSWORD)}@127.0.0.1:{port}/{name}"
        finally:
            _end(process, signal.SIGINT)


@contextmanager
def prometheus(config: Path) -> Iterator[str]:
    """Run Prometheus with this configuration; yields its URL. Its data is temporary."""
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
            _until(lambda: _is_up(f"{url}/-/ready"), process, log)
            yield url
        finally:
            _end(process, signal.SIGTERM)


def free_port() -> int:
    """Find a free port on 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
            raise RuntimeError(
                f"{process.args} did not start:\n{log.read_text(encoding='utf-8')[-2000:]}"
            )
        time.sleep(0.05)


def _is_up(url: str) -> bool:
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _other_user() -> list[str]:
    """Return the arguments with which setpriv gives up root; none for other users."""
    if os.geteuid():
        return []
    import pwd  # not available on Windows

    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users["nobody"]
    return ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]


def _libraries() -> dict[str, str]:
    """Return the environment with the cache's libraries, which the system lacks."""
    folders = [str(path) for path in cache().glob("usr/lib/*-linux-*")]
    current = os.environ.get("LD_LIBRARY_PATH")
    paths = ":".join([*([current] if current else []), *folders])
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
    parser.add_argument("action", choices=("install", "postgres", "prometheus"))
    config = PROJECT / "deploy" / "prometheus" / "prometheus.yml"
    parser.add_argument(
        "config", nargs="?", type=Path, default=config, help="Prometheus' configuration"
    )
    options = parser.parse_args()
    try:
        if options.action == "install":
            for package in install():
                print(f"unpacked: {package}")
            for program in PACKAGES:
                print(f"{program}: {need(program)}")
            return 0
        service = postgres() if options.action == "postgres" else prometheus(options.config)
        with service as url:
            print(f"{url}   (Ctrl-C stops it)", flush=True)
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
