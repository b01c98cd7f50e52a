"""Remove from an environment what a server never loads, or check that the rest works.

    python scripts/slim.py ENVIRONMENT [--check COMMAND]

The Dockerfile runs both. A library that comes to need what was removed fails the check, which names
the file: take its pattern out of the lists below.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

FOLDERS = (  # below site-packages
    "**/tests",
    "alembic/testing",
    "sqlalchemy/testing",
    "numpy/_pyinstaller",
    "numpy/f2py",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)
FILES = ("**/*.pyi", "**/*.h", "**/*.hpp", "**/*.c", "**/*.pxd", "**/*.pyx", "**/*.a")
LIBRARIES = ("onnxruntime/capi/libonnxruntime.so*",)  # for C++; Python's module contains the same
# y = x + x, as an ONNX file
MODEL = bytes.fromhex(
    "08083a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a02080162"
    "0f0a0179120a0a08080112040a02080142040a00100d"
)
RUN_MODEL = (
    "import numpy, onnxruntime, sys; model = onnxruntime.InferenceSession(sys.stdin.buffer.read()); "
    "(y,) = model.run(None, {'x': numpy.ones(1, 'f')}); assert y == 2, y"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("environment", type=Path)
    parser.add_argument("--check", metavar="COMMAND", help="the project's command, to check")
    options = parser.parse_args()
    (packages,) = options.environment.glob("lib/python3*/site-packages")
    if options.check:
        check(packages, options.environment / "bin", options.check)
        return
    before = size(packages)
    remove(packages)
    strip(packages)
    print(f"{packages}: {before / 1e6:.0f} MB, now {size(packages) / 1e6:.0f} MB")


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def remove(packages: Path) -> None:
    """Remove folders, files and libraries; what matches nothing is reported, as it may be old."""
    for pattern in FOLDERS:
        found = [path for path in packages.glob(pattern) if path.is_dir()]
        for path in found:
            shutil.rmtree(path, ignore_errors=True)
        report(pattern, found)
    for pattern in FILES:
        for path in packages.glob(pattern):
            path.unlink()
    for pattern in LIBRARIES:
        found = list(packages.glob(pattern))
        name = pattern.rpartition("/")[2].rstrip("*").encode()
        others = [path for path in shared_objects(packages) if path not in found]
        if users := [path for path in others if name in path.read_bytes()]:
            print(f"kept: {pattern} is needed by {users[0].name}")
            continue
        for path in found:
            path.unlink()
        report(pattern, found)


def report(pattern: str, found: list[Path]) -> None:
    if not found:
        print(f"nothing matches {pattern}, which may be out of date")


def strip(packages: Path) -> None:
    """Remove the symbols that only a debugger or a linker reads."""
    for path in shared_objects(packages):
        subprocess.run(["strip", "--strip-unneeded", path], check=True)


def shared_objects(packages: Path) -> Iterator[Path]:
    return (path for path in packages.rglob("*.so*") if path.is_file())


def check(packages: Path, programs: Path, command: str) -> None:
    """Load every compiled file, run a model, start the server and ask it."""
    python = str(programs / "python")
    for path in shared_objects(packages):
        code = f"import ctypes; ctypes.CDLL({str(path)!r})"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: {path} cannot be loaded: {done.stderr.strip()}")
    subprocess.run([python, "-c", RUN_MODEL], input=MODEL, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"APP_PORT": str(port), "APP_DATABASE_URL": "none"}
    with subprocess.Popen([programs / command, "serve"], env={**os.environ, **settings}) as server:
        try:
            # Without a deployment it is alive and not ready.
            while answer(port, "/healthz") != 200:
                if server.poll() is not None:
                    sys.exit("error: the server ended, see above")
                time.sleep(0.1)
            assert answer(port, "/readyz") == 503
            assert answer(port, "/metrics") == 200
            assert answer(port, "/docs") == 200
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(15) == 0
    print("checked: the server starts and answers")


def answer(port: int, path: str) -> int:
    """Return the status of the server's response, 0 while it does not listen."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return direct.open(f"http://127.0.0.1:{port}{path}", timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


if __name__ == "__main__":
    main()
