"""The documentation site is complete, builds strictly, loads nothing from elsewhere."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reference
from conftest import FORMS, ROOT, TASKS

DOCS = ROOT / "docs"
FULL = reference.FULL
# what a browser fetches by itself, unlike the target of a link
FETCHED = re.compile(
    r'<(?:script|img|source|iframe|link)[^>]*?(?:src|href)="?((?:https?:)?//[^" >]*)'
)


def test_the_reference_is_what_the_code_says() -> None:
    for name, text in reference.pages().items():
        written = (DOCS / name).read_text(encoding="utf-8")
        assert written == text, f"docs/{name} is not current, run: make reference"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", TASKS)
def test_every_setting_has_a_row(tmp_path: Path, task: str, form: str) -> None:
    project = reference.read_project(tmp_path, task, form)
    names = "settings.md", f"settings-{task}.md"
    rows = "".join((DOCS / "reference" / name).read_text(encoding="utf-8") for name in names)
    server = (DOCS / "reference" / "server.md").read_text(encoding="utf-8")
    assert len(project.settings) > 40
    assert len(project.server) > 30
    assert [key for key in project.settings if f"\n| `{key}` |" not in rows] == []
    assert [key for key in project.server if f"\n| `APP_{key.upper()}` |" not in server] == []
    if form == "basic":  # nothing that it has is said to be only in the other form
        marked = [line for line in rows.splitlines() if line.endswith((FULL, f"{FULL} |"))]
        own = [f"| `{key}` |" for key in project.settings]
        own += [f"## {section} " for section in project.sections]
        assert marked
        assert [line for line in marked if line.startswith(tuple(own))] == []


def test_every_question_and_answer_is_explained() -> None:
    page = (DOCS / "reference" / "questions.md").read_text(encoding="utf-8")
    for question in ("project_name", "task", "mlops", "license", "ci", "cloud"):
        assert f"\n## {question}\n" in page
    for answer in [*TASKS, *FORMS, "gitlab", "azure", "Proprietary"]:
        assert re.search(rf"^\| `{answer}`.* \| \S.* \|$", page, re.M), answer


def test_every_page_is_in_the_navigation() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    named = set(_targets(config["project"]["nav"]))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert named - there == set()
    # decisions are listed by their own index
    assert {name for name in there - named if not re.match(r"decisions/\d", name)} == set()


def _targets(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        for target in entry.values():
            if isinstance(target, str):
                yield target
            else:
                yield from _targets(target)


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    zensical = Path(sys.executable).with_name("zensical")
    command = [zensical, "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "build" / "site").rglob("*.html"))
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    for page in pages:
        assert FETCHED.findall(page.read_text(encoding="utf-8")) == [], page
    styles = (tmp_path / "build" / "site").rglob("*.css")
    assert not any(re.search(r"url\(.?(https?:)?//", file.read_text("utf-8")) for file in styles)


def test_a_broken_link_breaks_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Start\n\n[nowhere](nowhere.md)\n", "utf-8")
    config = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    config = re.sub(r"^nav = \[\n.*?^\]\n", "", config, flags=re.M | re.S)
    (tmp_path / "zensical.toml").write_text(config, encoding="utf-8")
    zensical = Path(sys.executable).with_name("zensical")
    command = [zensical, "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "page does not exist" in done.stdout + done.stderr
