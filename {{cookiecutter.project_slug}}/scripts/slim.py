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
MODULES = ("PIL/_avif.*", "PIL/_imagingft.*", "PIL/_imagingtk.*", "numpy/_core/_simd.*")
# Removed if no other compiled file names them: ONNX Runtime's library for C++, whose code Python's
# module contains too, and what only the modules above needed.
LIBRARIES = ("onnxruntime/capi/libonnxruntime.so*", "*.libs/*.so*")
# y = x + x, as an ONNX file
MODEL = bytes.fromhex(
    # pragma: allowlist nextline secret
    "08083a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a02080162"
    "0f0a0179120a0a08080112040a02080142040a00100d"
)
RUN_MODEL = """\
import numpy, onnxruntime, sys
model = onnxruntime.InferenceSession(sys.stdin.buffer.read())
(y,) = model.run(None, {"x": numpy.ones(1, "f")})
assert y == 2, y
"""


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
    strip(packages, options.environment / "bin/python")
    print(f"{packages}: {before / 1e6:.0f} MB, now {size(packages) / 1e6:.0f} MB")


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def remove(packages: Path) -> None:
    """Remove folders and files, then libraries that no compiled file names any more."""
    for pattern in FOLDERS:
        for path in packages.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for pattern in (*FILES, *MODULES):
        for path in packages.glob(pattern):
            path.unlink()
    contents = {path: path.read_bytes() for path in shared_objects(packages)}
    libraries = {path for pattern in LIBRARIES for path in packages.glob(pattern)}
    needed = contents.keys() - libraries
    while more := {path for path in libraries - needed if is_named(path, contents, needed)}:
        needed |= more
    for path in libraries - needed:
        path.unlink()


def is_named(library: Path, contents: dict[Path, bytes], by: set[Path]) -> bool:
    name = f"{library.name.partition('.so')[0]}.so".encode()
    return any(name in contents[path] for path in by)


def strip(packages: Path, python: Path) -> None:
    """Remove the symbols that only a debugger or a linker reads. What cannot be loaded without, as
    some files that were patched when they were packed, keeps them."""
    for path in shared_objects(packages):
        stripped = path.with_name(f"stripped-{path.name}")
        subprocess.run(["strip", "--strip-unneeded", "-o", stripped, path], check=True)
        if load_error(python, stripped) is None:
            shutil.copymode(path, stripped)
            stripped.replace(path)
        else:
            stripped.unlink()
            print(f"not stripped: {path.name}")


def load_error(python: Path, path: Path) -> str | None:
    code = f"import ctypes; ctypes.CDLL({str(path)!r})"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else None


def shared_objects(packages: Path) -> list[Path]:
    return [path for path in packages.rglob("*.so*") if path.is_file()]


def check(packages: Path, programs: Path, command: str) -> None:
    """Load every compiled file, run a model, start the server and ask it."""
    python = programs / "python"
    for path in shared_objects(packages):
        if error := load_error(python, path):
            sys.exit(f"error: {path} cannot be loaded: {error}")
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
