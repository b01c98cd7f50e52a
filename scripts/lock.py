"""Renew the generated project's constraints.txt for all tasks together; needs uv.

make lock
"""

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import demo

TEMPLATE = Path(__file__).parents[1]
CONSTRAINTS = TEMPLATE / "{{cookiecutter.project_slug}}" / "constraints.txt"


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        projects = [demo.bake(Path(name) / task, task) for task in demo.NAMES]
        merged = merge([tomllib.loads((p / "pyproject.toml").read_text("utf-8")) for p in projects])
        (projects[0] / "pyproject.toml").write_text(merged, encoding="utf-8")
        command = [sys.executable, "scripts/setup.py", "--lock"]
        if code := subprocess.run(command, cwd=projects[0]).returncode:
            return code
        shutil.copyfile(projects[0] / "constraints.txt", CONSTRAINTS)
    print(f"written: {CONSTRAINTS.relative_to(TEMPLATE)}")
    return 0


def merge(contents: list[dict[str, Any]]) -> str:
    """One pyproject.toml that requires what any of them does."""
    lists: dict[str, dict[str, None]] = {"dependencies": {}, "dev": {}}
    for content in contents:
        lists["dependencies"] |= dict.fromkeys(content["project"]["dependencies"])
        for extra in content["project"]["optional-dependencies"].values():
            lists["dependencies"] |= dict.fromkeys(extra)
        lists["dev"] |= dict.fromkeys(content["dependency-groups"]["dev"])
    project = contents[0]["project"]
    return "\n".join(  # a JSON list of ASCII strings is a TOML list too
        [
            "[project]",
            'name = "all-tasks"',
            'version = "0"',
            f"requires-python = {json.dumps(project['requires-python'])}",
            f"dependencies = {json.dumps([*lists['dependencies']])}",
            "[dependency-groups]",
            f"dev = {json.dumps([*lists['dev']])}",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
