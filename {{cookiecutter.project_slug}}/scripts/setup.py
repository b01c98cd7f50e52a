"""Create the environment `.venv`: with uv if installed, else with venv and pip; same result.

    python scripts/setup.py [--no-dev] [--no-uv] [--lock] [FOLDER]

Does nothing if nothing has changed since the last time. Both tools install from the index that pip
is configured for, by variables (PIP_*) or its configuration file. With uv and the variable
UV_RESOLUTION it installs not the versions in constraints.txt but the lowest (lowest-direct) or the
newest (highest) ones that pyproject.toml allows.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from io import TextIOWrapper
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  this interpreter may well be older
    sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0])

import tomllib

LOCK_HEAD = """\
# The versions that were tested together, for every system and Python >= 3.11.
# Used by scripts/setup.py and the Dockerfile; renewed by: make lock
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--no-dev", action="store_true", help="without the development tools")
    parser.add_argument(
        "--no-uv", action="store_true", help="use venv and pip even if uv is installed"
    )
    parser.add_argument("--lock", action="store_true", help="update constraints.txt instead")
    options = parser.parse_args()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the folder's name, in a terminal of Latin-1
    os.chdir(options.folder)
    uv = None if options.no_uv else shutil.which("uv")
    if options.lock:
        return lock(uv)
    if os.environ.get("UV_RESOLUTION") and not uv:
        sys.exit("error: UV_RESOLUTION needs uv (https://docs.astral.sh/uv); unset it")
    arguments = requirements(options.no_dev)
    stamp, state = Path(".venv/setup-stamp"), fingerprint(arguments)
    # An environment with the development tools also serves those who need none.
    accepted = {state, fingerprint(requirements(no_dev=False))}
    if stamp.exists() and stamp.read_bytes().decode() in accepted:
        return 0
    started = time.monotonic()
    tool = "uv" if uv else "venv and pip"
    print(f"creating {Path.cwd() / '.venv'} with {tool}, about a minute …", flush=True)
    stamp.unlink(missing_ok=True)
    if was_moved():
        shutil.rmtree(".venv")  # its programs name the interpreter by its old path
    python = Path(".venv", "Scripts/python.exe" if os.name == "nt" else "bin/python")
    if uv:
        run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, ".venv"])
        # pip compiles what it installs, uv only on request; the first start is then quicker.
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        run([*install, *arguments], {**os.environ, **settings_for_uv()})
    else:
        run([sys.executable, "-m", "venv", ".venv"])
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        log = Path(".venv/setup.log")  # pip prints too much by default and too little with --quiet
        run([*pip, "pip>=25.1"], log=log)  # the first with dependency groups
        run([*pip, *arguments], log=log)
    stamp.write_bytes(state.encode())
    print(f"environment ready after {time.monotonic() - started:.0f} s", flush=True)
    return 0


def was_moved() -> bool:
    """Return whether `.venv` was created in another folder."""
    scripts = [path for path in Path(".venv").glob("*/activate") if path.is_file()]
    return any(str(Path.cwd()) not in path.read_text(encoding="utf-8") for path in scripts)


def requirements(no_dev: bool) -> list[str]:
    """List pip's arguments: the project with its training dependencies, and development tools."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    arguments = []
    if "project" in project:
        arguments += ["--editable", ".[train]"]
    if not no_dev:
        arguments += ["--group", "dev"]
    if resolution := os.environ.get("UV_RESOLUTION"):
        arguments += ["--resolution", resolution, "--upgrade"]  # also what is installed already
    elif Path("constraints.txt").exists():
        arguments += ["--constraint", "constraints.txt"]
    return arguments


def fingerprint(arguments: list[str]) -> str:
    """Hash everything that the environment depends on."""
    state = hashlib.sha256(repr([arguments, sys.version, str(Path.cwd())]).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        if Path(name).exists():
            state.update(Path(name).read_bytes())
    return state.hexdigest()


def settings_for_uv() -> dict[str, str]:
    """Translate pip's settings to uv's variables, except those that the user has set."""
    pip = {name: os.environ.get("PIP_" + name.replace("-", "_").upper()) for name in TRANSLATED}
    for name, value in pip.items():
        if value is None:
            command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
            done = subprocess.run(command, capture_output=True, text=True)
            pip[name] = done.stdout.strip() if done.returncode == 0 else None
    settings = {}
    for name, value in pip.items():
        variable, separator = TRANSLATED[name]
        if value and variable not in os.environ:
            settings[variable] = separator.join(value.split())
    if "UV_INDEX" in settings:  # pip picks the best version across indexes
        settings.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return settings


TRANSLATED = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "cert": ("SSL_CERT_FILE", " "),
}


def lock(uv: str | None) -> int:
    """Resolve the newest compatible versions into constraints.txt."""
    if uv is None:
        sys.exit("error: --lock needs uv (https://docs.astral.sh/uv)")
    command = [uv, "pip", "compile", "--quiet", "--universal", "--upgrade", "--resolution"]
    command += ["highest", "--python-version", "3.11", "--all-extras", "--group", "dev"]
    command += ["--no-header", "--no-annotate", "--no-emit-find-links", "--no-emit-index-url"]
    command.append("pyproject.toml")
    environment = {**os.environ, **settings_for_uv()}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return 1
    # The user's index decides which build of torch (CPU, CUDA) is installed, and torch itself pins
    # the CUDA libraries it needs: neither belongs here.
    lines = dict.fromkeys(
        line.partition(" ;")[0].partition("+")[0] if line.startswith("torch==") else line
        for line in done.stdout.splitlines()
        if not line.startswith(("nvidia-", "cuda-", "triton"))
    )
    Path("constraints.txt").write_text(LOCK_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    print("written: constraints.txt")
    return 0


def run(command: list[str], env: dict[str, str] | None = None, log: Path | None = None) -> None:
    """Run a command, with its output in `log` if given; exit with a clear message if it fails."""
    if log is None:
        code = subprocess.run(command, env=env).returncode
    else:
        with log.open("w") as output:
            code = subprocess.run(command, env=env, stdout=output, stderr=output).returncode
        if code:
            print("".join(log.read_text().splitlines(keepends=True)[-20:]), file=sys.stderr)
    if code:
        sys.exit(f"error: this command failed, its own message is above: {' '.join(command)}")


if __name__ == "__main__":
    sys.exit(main())
