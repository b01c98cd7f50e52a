"""`make standard` compares a project with the version of the template that it was made from."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import FORMS, ROOT, TASKS
from conftest import bake as bake_here
from pytest_cookies.plugin import Cookies

# What asks something of who passes it on, beyond naming its authors. Add to it only on purpose.
COPYLEFT = {"certifi", "tqdm", "psycopg", "psycopg-binary", "paramiko"}
OLD = "1577836800 +0000"  # of 2020
WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c"}
WHO |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c"}


def git(folder: Path, *arguments: str, **environment: str) -> None:
    command = ["git", "-C", str(folder), *arguments]
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, **WHO} | environment
    )


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """The template as it is in the work tree, committed as version 0.0.1."""
    folder = tmp_path / "template"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(folder))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "x")
    git(folder, "tag", "v0.0.1")
    return folder


def bake(template: Path, folder: Path, *answers: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input"]
    command += ["--default-config", "--output-dir", str(folder), "project_slug=reader", *answers]
    return subprocess.run(command, capture_output=True, text=True)


def standard(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it with this environment's cookiecutter; no gh or uvx of the system reaches a network."""
    programs = [str(Path(sys.executable).parent), *os.environ["PATH"].split(os.pathsep)]
    return subprocess.run(
        [sys.executable, "-m", "scripts.standard", *options],
        cwd=project,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": os.pathsep.join(programs), "UV_OFFLINE": "1"},
    )


def checks(project: Path) -> dict[str, dict[str, Any]]:
    said = json.loads(standard(project, "--json").stdout)
    return {each["check"]: each for each in said["checks"]}


def test_a_project_is_compared_with_what_its_version_makes_of_its_answers(
    template: Path, tmp_path: Path
) -> None:
    braces = "description={% raw %}It says {{ braces }}.{% endraw %}"
    assert bake(template, tmp_path, "task=forecasting", braces).returncode == 0
    project = tmp_path / "reader"
    before = checks(project)
    assert before["files"]["text"] == "as the template has them"
    assert before["template"]["state"] == "ok"
    assert not [name for name, each in before.items() if each["state"] == "problem"]

    # The template goes on, and the project, too.
    (template / "{{cookiecutter.project_slug}}" / "ruff.toml").write_text("line-length = 1\n")
    git(
        template, "commit", "--quiet", "--all", "--message", "x", GIT_COMMITTER_DATE="1577836800 +0"
    )
    git(template, "tag", "v9999.0.0")
    package = project / "src" / "reader"
    for path in (project / "Makefile", package / "cli.py", package / "task" / "model.py"):
        path.write_text("mine\n")
    (project / "scripts" / "slim.py").unlink()
    after = checks(project)
    assert "v9999.0.0" in after["template"]["text"]
    assert after["template"]["state"] == "problem"
    wrong = "not as the template has them: Makefile, scripts/slim.py (deleted)"
    assert after["files"]["text"] == wrong

    # The patch takes back what is not the team's own.
    patch = standard(project, "--diff").stdout
    subprocess.run(["git", "apply"], cwd=project, input=patch, check=True, text=True)
    assert checks(project)["files"]["text"] == "differ: 1 own"
    assert (package / "task" / "model.py").read_text() == "mine\n"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", TASKS)
def test_every_licence_of_what_ships_is_known_and_copyleft_is_named(
    cookies: Cookies, environment: Path, task: str, form: str
) -> None:
    project = bake_here(cookies, task=task, mlops=form)
    command = [environment / "python", "-m", "scripts.licences"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (project / "docs" / "licences.md").read_text(encoding="utf-8")
    assert "(default)" in page  # the data
    (head,) = [line for line in page.splitlines() if line.startswith("Copyleft: ")]
    named = dict(re.findall(r"([\w-]+) \([^,]+, (\w+)\)", head))
    assert {"certifi", "tqdm"} <= named.keys() <= COPYLEFT
    served = {name for name, place in named.items() if place == "server"}
    # tokenizers needs huggingface-hub, which needs tqdm.
    assert served <= {"psycopg", "psycopg-binary"} | ({"tqdm"} if "text" in task else set())
    done = subprocess.run([*command, "--check"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (project / "docs" / "licences.md").write_text(page.replace("| fastapi | MIT |", "| x | MIT |"))
    done = subprocess.run([*command, "--check"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 1
    assert "lacks | fastapi | MIT | server |" in done.stdout
