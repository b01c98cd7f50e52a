"""Make the environment `.venv`: with uv if it is there, else with venv and pip; same result.

    python scripts/setup.py [--no-dev] [--no-uv] [--lock] [FOLDER]

Nothing is done when nothing changed since the last time. Both tools take packages from where pip
is told to by the environment (PIP_*) or its configuration, so one setting serves both.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  the reader may well have an older one
    sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0])

import tomllib

LOCK_HEAD = """\
# The versions that were tested together, for every system and Python >= 3.11.
# Used by scripts/setup.py and the Dockerfile; renewed by: make lock
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--no-dev", action="store_true", help="leave out the checks' tools")
    parser.add_argument("--no-uv", action="store_true", help="use venv and pip even if uv is there")
    parser.add_argument("--lock", action="store_true", help="renew constraints.txt instead")
    options = parser.parse_args()
    os.chdir(options.folder)
    uv = None if options.no_uv else shutil.which("uv")
    if options.lock:
        return lock(uv)
    wanted = requirements(options.no_dev)
    stamp, state = Path(".venv/setup-stamp"), fingerprint(wanted)
    # With the checks' tools there is also all that is needed without them.
    enough = {state, fingerprint(requirements(no_dev=False))}
    if stamp.exists() and stamp.read_text() in enough:
        return 0
    started = time.monotonic()
    tool = "uv" if uv else "venv and pip"
    print(f"making {Path.cwd() / '.venv'} with {tool}, which takes a minute …", flush=True)
    stamp.unlink(missing_ok=True)
    python = Path(".venv", "Scripts/python.exe" if os.name == "nt" else "bin/python")
    if uv:
        run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, ".venv"])
        # pip compiles what it installs; so does uv when told to. The first start is quicker.
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        run([*install, *wanted], {**os.environ, **settings_for_uv()})
    else:
        run([sys.executable, "-m", "venv", ".venv"])
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        log = Path(".venv/setup.log")  # pip says little when quiet and too much when not
        run([*pip, "pip>=25.1"], log=log)  # the first that knows dependency groups
        run([*pip, *wanted], log=log)
    stamp.write_text(state)
    print(f"environment ready after {time.monotonic() - started:.0f} s", flush=True)
    return 0


def requirements(no_dev: bool) -> list[str]:
    """What to install: the project with what training needs, and the tools of the checks."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    wanted = []
    if "project" in project:
        wanted += ["--editable", ".[train]"]
    if not no_dev:
        wanted += ["--group", "dev"]
    if Path("constraints.txt").exists():
        wanted += ["--constraint", "constraints.txt"]
    return wanted


def fingerprint(wanted: list[str]) -> str:
    """Changes with anything that the environment depends on."""
    digest = hashlib.sha256(repr([wanted, sys.version, str(Path.cwd())]).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        if Path(name).exists():
            digest.update(Path(name).read_bytes())
    return digest.hexdigest()


def settings_for_uv() -> dict[str, str]:
    """pip's own settings as uv's variables, where the user has set none of uv's."""
    pip = {name: os.environ.get("PIP_" + name.replace("-", "_").upper()) for name in TRANSLATED}
    for name, value in pip.items():
        if value is None:
            command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
            found = subprocess.run(command, capture_output=True, text=True)
            pip[name] = found.stdout.strip() if found.returncode == 0 else None
    settings = {}
    for name, value in pip.items():
        variable, separator = TRANSLATED[name]
        if value and variable not in os.environ:
            settings[variable] = separator.join(value.split())
    if "UV_INDEX" in settings:  # pip takes the best version of all indexes
        settings.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return settings


TRANSLATED = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "cert": ("SSL_CERT_FILE", " "),
}


def lock(uv: str | None) -> int:
    """Write the newest versions that fit together into constraints.txt."""
    if uv is None:
        sys.exit("error: --lock needs uv (https://docs.astral.sh/uv)")
    command = [uv, "pip", "compile", "--quiet", "--universal", "--upgrade", "--python-version"]
    command += ["3.11", "--all-extras", "--group", "dev", "--no-header", "--no-annotate"]
    command += ["--no-emit-find-links", "--no-emit-index-url", "pyproject.toml"]
    environment = {**os.environ, **settings_for_uv()}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return 1
    # Which build of torch (for CPU, for CUDA) is up to the user's index, and torch itself names the
    # exact CUDA libraries it needs: neither belongs here.
    lines = dict.fromkeys(
        line.partition(" ;")[0].partition("+")[0] if line.startswith("torch==") else line
        for line in done.stdout.splitlines()
        if not line.startswith(("nvidia-", "cuda-", "triton"))
    )
    Path("constraints.txt").write_text(LOCK_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    print("written: constraints.txt")
    return 0


def run(command: list[str], env: dict[str, str] | None = None, log: Path | None = None) -> None:
    """Run a command, its output into `log` if given; end with a clear message when it fails."""
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
