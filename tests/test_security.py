"""Workflows, Dockerfile and sources of a project pass the scanners that its users will run."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TASKS, bake
from pytest_cookies.plugin import Cookies

PROGRAMS = Path(sys.executable).parent


def scanned(project: Path, *command: str) -> str:
    """Run a scanner in the project; its findings are the output, and its exit code is not 0."""
    done = subprocess.run(
        [PROGRAMS / command[0], *command[1:]],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return f"{' '.join(command)}:\n{done.stdout}" if done.returncode else ""


def tracked(project: Path) -> list[str]:
    subprocess.run(["git", "add", "--all"], cwd=project, check=True, capture_output=True)
    listed = subprocess.run(["git", "ls-files"], cwd=project, check=True, capture_output=True)
    return listed.stdout.decode().splitlines()


@pytest.mark.parametrize("task", TASKS)
def test_scanners_find_nothing(cookies: Cookies, task: str) -> None:
    project = bake(cookies, task=task)
    assert not scanned(project, "zizmor", "--offline", "--no-progress", ".")
    assert not scanned(project, "hadolint", "Dockerfile")
    assert not scanned(project, "bandit", "--quiet", "-ll", "--recursive", "src", "scripts")


@pytest.mark.parametrize("task", TASKS)
def test_make_audit_finds_no_secret_in_a_new_project_and_one_that_was_added(
    cookies: Cookies, task: str
) -> None:
    project = bake(cookies, task=task)
    makefile = (project / "Makefile").read_text(encoding="utf-8")
    options = makefile.partition("detect-secrets-hook")[2].split("\n\n")[0].replace("\\\n", " ")
    words = [word.strip("'").replace("$$", "$") for word in options.split()]
    assert words[0] == "--exclude-files"
    (project / ".cruft.json").write_text('{"commit": "2535ef7f13765c862dd75779ed8694ff4a076969"}\n')
    assert not scanned(project, "detect-secrets-hook", *words, *tracked(project))
    (project / "notes.md").write_text("postgresql://app:Xy7-real@database/log\n")
    assert "notes.md:1" in scanned(project, "detect-secrets-hook", *words, *tracked(project))


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_each_command_of_the_pipelines_is_a_target(cookies: Cookies, ci: str) -> None:
    project = bake(cookies, ci=ci)
    targets = {
        line.partition(":")[0]
        for line in (project / "Makefile").read_text(encoding="utf-8").splitlines()
    }
    files = {
        "github": project.glob(".github/workflows/*.yml"),
        "gitlab": [project / ".gitlab-ci.yml"],
    }
    called = set()
    for path in files[ci]:
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text)
        called |= {
            line.split("make ")[1].split()[0]
            for line in text.splitlines()
            if line.strip().startswith(("- make ", "- run: make "))
        }
    assert {"check", "test", "report", "image", "audit", "lock"} <= called <= targets
