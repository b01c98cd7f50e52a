"""Compare this project with its template: what `standard.py` checks first, and what it needs."""

import difflib
import json
import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from .update import RECORDS, as_text, full_address, newest, record, version

# Files that are alike in all projects of a version. The rest of the template's files is the core
# (the package without task/), or the team's own.
STANDARD = (".github/*", ".gitlab-ci.yml", ".pre-commit-config.yaml", "Makefile", "ruff.toml")
STANDARD += ("scripts/*", "pyproject.toml")


class Problem(Exception):
    """What is wrong, and what to do."""


class NotChecked(Exception):
    """Why something could not be checked, and what to do."""


class Project:
    """The project in the working directory."""

    def __init__(self, work: Path, offline: bool) -> None:
        self.work, self.offline = work, offline
        self.pyproject = read_toml(Path("pyproject.toml"))
        self.name = self.pyproject["project"]["name"]
        self.settings = self.pyproject.get("tool", {}).get("standard", {})
        self.max_days = self.settings.get("max-days", 90)
        self.template: Path | None = None  # once it is cloned

    @cached_property
    def record(self) -> dict[str, Any]:
        """Template, commit, answers and version; cruft keeps the first two up to date."""
        return record()

    @cached_property
    def tracked(self) -> list[str]:
        return [name for name in git("ls-files", "-z").split("\0") if name]


def template(project: Project) -> str:
    """Clone the template, check out the project's commit and look for a newer version."""
    record = project.record
    if not record:
        advice = "cruft link --checkout COMMIT ADDRESS records it"
        raise Problem("neither .cruft.json nor .template.json says where it is from", advice)
    if not record.get("template") or not record.get("commit"):
        raise NotChecked("it was made from a template that was no git repository")
    need_network(project)
    clone, address = project.work / "template", full_address(record["template"])
    command = ["git", "clone", "--quiet", "--no-checkout", "--filter=blob:none", "--", address]
    run([*command, str(clone)], "the template is out of reach")
    run(["git", "-C", str(clone), "checkout", "--quiet", record["commit"], "--"], "template")
    project.template = clone
    commit = record["commit"][:10]
    tag = newest(git("tag", folder=clone).split())
    own = record.get("version") or newest(git("tag", "--merged", folder=clone).split())
    if not tag:
        behind = git("rev-list", "--count", "HEAD..origin/HEAD", folder=clone)
        return f"commit {commit}, {behind} behind; the template has no versions"
    if version(own) >= version(tag):
        return f"version {own} is the newest"
    days = age(git("log", "-1", "--format=%ct", tag, folder=clone))
    text = f"version {own or commit}; {tag} is {days} days old"
    if days > project.max_days:
        raise Problem(f"{text}, more than {project.max_days}", "make update")
    return text


def files(project: Project) -> str:
    """Compare with what the recorded version makes of the recorded answers."""
    kinds = differences(bake(project))
    accepted = project.settings.get("accepted", [])
    wrong = [f for f in kinds["standard"] if not any(fnmatch(f, each) for each in accepted)]
    if wrong:
        advice = "see `make standard ARGS=--diff`; restore them, or name them in pyproject.toml: "
        raise Problem(f"not as the template has them: {listed(wrong)}", f"{advice}tool.standard")
    differ = [f"{len(names)} {kind}" for kind, names in kinds.items() if names]
    text = f"differ: {', '.join(differ)}" if differ else "as the template has them"
    return text + (f"; updates may conflict: {listed(kinds['core'])}" if kinds["core"] else "")


def listed(names: list[str]) -> str:
    return ", ".join(name if Path(name).exists() else f"{name} (deleted)" for name in names)


def bake(project: Project) -> Path:
    """Make the project anew, as it was when it was made or last updated."""
    out = project.work / "out"
    if out.exists():
        return next(out.iterdir())
    if project.template is None:
        raise NotChecked("see template")
    if program := shutil.which("cookiecutter"):
        command = [program]
    elif uvx := shutil.which("uvx"):
        command = [uvx, "cookiecutter@2.7.1"]
    else:
        raise NotChecked("neither cookiecutter nor uvx is installed")
    answers = as_text(project.record["answers"])
    folders = {f"{name}_dir": str(project.work / name) for name in ("cookiecutters", "replay")}
    config = project.work / "config.yaml"
    # JSON is YAML, too.
    config.write_text(json.dumps({"default_context": answers, **folders}), encoding="utf-8")
    command += [str(project.template), "--no-input", "--config-file", str(config)]
    run([*command, "--output-dir", str(out)], "the template's version cannot be made")
    return next(out.iterdir())


def differences(baked: Path) -> dict[str, list[str]]:
    """List the files that were changed or deleted since, by kind."""
    kinds: dict[str, list[str]] = {"standard": [], "core": [], "own": []}
    for path in sorted(path for path in baked.rglob("*") if path.is_file()):
        name = path.relative_to(baked).as_posix()
        if name.startswith(".git/") or name in RECORDS:
            continue
        if content(path) != content(Path(name)):
            if any(fnmatch(name, pattern) for pattern in STANDARD):
                kind = "standard"
                if name == "pyproject.toml" and tools(path) == tools(Path(name)):
                    kind = "own"  # its dependencies, name, version
            else:
                core = name.startswith("src/") and name.split("/")[2] != "task"
                kind = "core" if core else "own"
            kinds[kind].append(name)
    return kinds


def content(path: Path) -> bytes | None:
    return path.read_bytes().replace(b"\r\n", b"\n") if path.is_file() else None


def tools(path: Path) -> dict[str, Any]:
    """Return how the tools are configured, without this one."""
    tools = read_toml(path).get("tool", {}) if path.exists() else {}
    return {name: values for name, values in tools.items() if name not in ("standard", "cruft")}


def patch(project: Project) -> Iterator[str]:
    """Yield the patch that makes standard and core files what the template made them."""
    baked = bake(project)
    kinds = differences(baked)
    for name in [*kinds["standard"], *kinds["core"]]:
        old, new = content(Path(name)), (baked / name).read_text(encoding="utf-8")
        lines = [(old or b"").decode().splitlines(True), new.splitlines(True)]
        yield from difflib.unified_diff(
            *lines, f"a/{name}" if old is not None else os.devnull, f"b/{name}"
        )


def need_network(project: Project) -> None:
    if project.offline:
        raise NotChecked("needs a network")


def run(command: list[str], doing: str) -> str:
    """Return what a command prints. Raises NotChecked, with its last words, if it fails."""
    done = attempt(command)
    if done.returncode:
        raise NotChecked(f"{doing}: {last_line(done.stderr)}")
    return done.stdout.strip()


def attempt(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that cannot ask for a password and ends within two minutes."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def git(*arguments: str, folder: Path = Path()) -> str:
    return run(["git", "-C", str(folder), *arguments], f"git {arguments[0]}")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def age(timestamp: str) -> int:
    return int((time.time() - int(timestamp)) / 86400)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
