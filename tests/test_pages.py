"""The generated pages are short, and what they say of files, links and lines is true."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import FORMS, TASKS, bake
from pytest_cookies.plugin import Cookies

MADE = {"data", "deployment", "runs", "feedback", "loop", "tracking"}  # by a person or a command
PATH = re.compile(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)`")  # `serving/predict.py`, `training/`


def lines(path: Path) -> int:
    """How many lines of Python a file or a folder has."""
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


@pytest.fixture(params=FORMS)
def project(request: pytest.FixtureRequest, cookies: Cookies) -> Path:
    return bake(cookies, mlops=request.param)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", TASKS)
def test_the_readme_has_at_most_900_words(cookies: Cookies, task: str, form: str) -> None:
    text = (bake(cookies, task=task, mlops=form) / "README.md").read_text(encoding="utf-8")
    words = re.sub(r"<!--.*?-->", "", text, flags=re.S).split()
    assert len([word for word in words if re.search(r"\w", word)]) <= 900


def test_every_link_of_every_page_leads_somewhere(project: Path) -> None:
    for page in [*project.glob("*.md"), *project.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(project)}: {link}"


def test_every_file_that_a_page_names_is_there(project: Path) -> None:
    package = project / "src" / "ml_project"
    named = 0
    for page in project.glob("docs/*.md"):
        for name in PATH.findall(page.read_text(encoding="utf-8")):
            named += 1
            places = [package / name, package / "task" / name, project / name]
            made = name.split("/")[0] in MADE
            assert made or any(place.exists() for place in places), f"{page.name}: {name}"
    assert named > 20


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", TASKS)
def test_no_page_speaks_of_the_default_data(cookies: Cookies, task: str, form: str) -> None:
    """But those that list sources of data, and the experiments with it."""
    project = bake(cookies, task=task, mlops=form)
    words = ""
    for node in ast.parse((project / "tests" / "quick.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DEFAULT_WORDS":
            words = ast.literal_eval(node.value)
    assert words
    for page in {*project.glob("*.md"), *project.glob("docs/*.md")}:
        if page.name not in ("data.md", "licences.md"):
            found = re.search(words, page.read_text(encoding="utf-8"))
            assert not found, f"{page.relative_to(project)}: {found}"


def test_the_architecture_page_counts_lines_right(cookies: Cookies) -> None:
    project = bake(cookies)
    package = project / "src" / "ml_project"
    page = (project / "docs" / "architecture.md").read_text(encoding="utf-8")
    counted = 0
    for row in re.findall(r"^\|(.*)\|$", page, re.M):
        cells = [cell.strip() for cell in row.split("|")]
        names = [PATH.findall(cell) for cell in cells]
        numbers = [cell for cell in cells[1:] if re.fullmatch(r"[\d,]+", cell)]
        paths = next((found for found in names if found), [])
        if paths and len(numbers) == 1:
            counted += 1
            found, said = sum(lines(package / name) for name in paths), numbers[0].replace(",", "")
            assert abs(found - int(said)) <= 0.05 * found + 3, f"{paths}: {found}, not {said}"
    assert counted > 15


@pytest.mark.parametrize("task", TASKS)
def test_a_shipped_history_is_small_concluded_and_of_no_machine_or_project(
    cookies: Cookies, task: str
) -> None:
    pages = bake(cookies, task=task) / "docs" / "experiments"
    records = sorted(pages.glob("*/record.json"))
    assert not records or len(records) >= 6
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/home/|/root/|/tmp/|/work/|[A-Z]:\\", text), path
        assert json.loads(text)["info"]["settings"]["name"] == "history"
        assert sum(file.stat().st_size for file in path.parent.iterdir()) < 40_000, path
        assert "Not written yet." not in (path.with_name("README.md")).read_text(encoding="utf-8")


@pytest.mark.parametrize("task", TASKS)
def test_a_shipped_history_passes_the_check_of_pages_in_a_project_of_any_name(
    cookies: Cookies, environment: Path, task: str
) -> None:
    project = bake(cookies, task=task, project_name="Cell Sorter")
    count = len(list(project.glob("docs/experiments/*/record.json")))
    done = subprocess.run(
        [environment / "python", "-m", "cell_sorter.cli", "report", "--check"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = f"pages match the records of {count} experiments" if count else "no results yet"
    assert done.stdout.strip() == said
