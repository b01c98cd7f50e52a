"""Update the generated project's constraints.txt for all tasks together: `make lock`. Needs uv.

What these versions install takes names that no project may have; their list is renewed too.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import demo
import names

TEMPLATE = Path(__file__).parents[1]
CONSTRAINTS = TEMPLATE / "{{cookiecutter.project_slug}}" / "constraints.txt"
SETUP = CONSTRAINTS.parent / "scripts" / "setup.py"


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merged, _ = all_tasks(folder / "tasks")
        project = '[project]\nname = "tasks"\nversion = "0"\nrequires-python = ">=3.11"\n'
        (folder / "pyproject.toml").write_text(project + merged, encoding="utf-8")
        if code := subprocess.run([sys.executable, str(SETUP), "--lock", name]).returncode:
            return code
        shutil.copyfile(folder / "constraints.txt", CONSTRAINTS)
    print(f"written: {CONSTRAINTS.relative_to(TEMPLATE)}")
    return names.write(environment(TEMPLATE / "build" / "test" / "environment") / "python")


def environment(folder: Path) -> Path:
    """Install what all tasks need in `folder`; return where the programs are."""
    with tempfile.TemporaryDirectory() as name:
        merged, constraints = all_tasks(Path(name))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(merged, encoding="utf-8")
    (folder / "constraints.txt").write_text(constraints, encoding="utf-8")
    subprocess.run([sys.executable, str(SETUP), str(folder)], check=True)
    return folder / ".venv" / ("Scripts" if os.name == "nt" else "bin")


def all_tasks(folder: Path) -> tuple[str, str]:
    """Generate every task in both forms; return (pyproject.toml of all together, constraints)."""
    needed: dict[str, None] = {}
    for task, mlops in itertools.product(demo.NAMES, ("full", "basic")):
        project = demo.bake(folder / mlops, task, mlops)
        content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        needed |= dict.fromkeys(requirements(content))
    # A JSON list of ASCII strings is a TOML list too. No [project]: nothing is installed.
    merged = f"[dependency-groups]\ndev = {json.dumps([*needed], indent=4)}\n"
    return merged, CONSTRAINTS.read_text(encoding="utf-8")


def requirements(content: dict[str, Any]) -> list[str]:
    """List all requirements of a pyproject.toml: serving, training, development and extras."""
    project = content["project"]
    groups = [*project["optional-dependencies"].values(), *content["dependency-groups"].values()]
    return [*project["dependencies"], *(name for group in groups for name in group)]


if __name__ == "__main__":
    sys.exit(main())
