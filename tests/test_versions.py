"""Versions: of the template, in projects, and from each to the newest over a person's work."""

import datetime
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import release
import updates
from conftest import ROOT

HISTORY = subprocess.run(["git", "-C", str(ROOT), "cat-file", "-e", "2535ef7"], capture_output=True)
with_history = pytest.mark.skipif(HISTORY.returncode != 0, reason="needs the whole history")
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
WHO = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]


def git(folder: Path, *arguments: str) -> str:
    return release.git(folder, *WHO, *arguments)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of the last commit, on main, with something unreleased."""
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Ada")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "ada@example.com")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Ada")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "ada@example.com")
    folder = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", str(ROOT), str(folder))
    git(folder, "switch", "--quiet", "--force-create", "main")
    unreleased(folder, "- A new thing.")
    return folder


def unreleased(folder: Path, text: str) -> None:
    path = folder / "CHANGELOG.md"
    before, _, rest = path.read_text(encoding="utf-8").partition("## Unreleased\n")
    rest = rest[rest.index("\n## ") :]
    path.write_text(f"{before}## Unreleased\n\n{text}\n{rest}", encoding="utf-8")
    git(folder, "commit", "--quiet", "--all", "--allow-empty", "--message", "Changelog")


def version_of(folder: Path) -> str:
    found = release.VERSION.search((folder / "hooks" / "post_gen_project.py").read_text("utf-8"))
    assert found is not None
    return found[1]


def test_projects_record_the_newest_version_of_the_changelog() -> None:
    (newest, *_) = release.HEADING.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert version_of(ROOT) == newest[0]


@with_history
def test_versions_of_the_changelog_are_commits_in_order_of_number_and_time() -> None:
    versions = release.versions()
    assert len(versions) >= 8
    assert versions[-1].commit == "2535ef7"
    numbers = [release.numbers(version.number) for version in versions]
    assert numbers == sorted(numbers, reverse=True)
    for newer, older in itertools.pairwise(versions):
        git(ROOT, "merge-base", "--is-ancestor", older.commit, newer.commit)
    for version in versions:
        assert git(ROOT, "show", "-s", "--format=%as", version.commit) == version.date


def test_a_release_dates_the_section_sets_the_version_commits_and_tags(clone: Path) -> None:
    release.release(clone, "99.0.0")
    assert version_of(clone) == "99.0.0"
    text = (clone / "CHANGELOG.md").read_text(encoding="utf-8")
    today = datetime.date.today().isoformat()
    assert f"## Unreleased\n\n## 99.0.0 - {today}\n\n- A new thing.\n\n## " in text
    assert git(clone, "status", "--porcelain") == ""
    head = git(clone, "rev-parse", "HEAD")
    assert git(clone, "rev-parse", "v99.0.0^{commit}") == head
    assert git(clone, "cat-file", "-t", "v99.0.0") == "tag"
    unreleased(clone, "- A later thing.")
    assert head.startswith(release.versions(clone)[0].commit)


def test_a_release_that_is_not_ready_is_refused_and_changes_nothing(clone: Path) -> None:
    newest = version_of(clone)
    for version, reason in {"1.0": "three numbers", newest: "above", "0.0.1": "above"}.items():
        refused(clone, version, reason)
    (clone / "notes.txt").write_text("mine\n")
    refused(clone, "99.0.0", "work tree")
    (clone / "notes.txt").unlink()
    git(clone, "switch", "--quiet", "--create", "other")
    refused(clone, "99.0.0", "branch main")
    git(clone, "switch", "--quiet", "main")
    unreleased(clone, "")
    refused(clone, "99.0.0", "Unreleased")


def refused(clone: Path, version: str, reason: str) -> None:
    head = git(clone, "rev-parse", "HEAD")
    with pytest.raises(SystemExit, match=reason):
        release.release(clone, version)
    assert git(clone, "rev-parse", "HEAD") == head
    assert git(clone, "diff") == git(clone, "tag", "--list", "v99*") == ""


def test_a_project_records_version_and_commit_with_cruft_and_without(
    clone: Path, tmp_path: Path
) -> None:
    head = git(clone, "rev-parse", "HEAD")
    made = tmp_path / "cruft"
    options = ("--no-input", "--default-config", "--output-dir", str(made))
    updates.run(tmp_path, "cruft", "create", *options, str(clone))
    plain = tmp_path / "plain"
    options = ("--no-input", "--default-config", "--output-dir", str(plain))
    updates.run(tmp_path, "cookiecutter", *options, str(clone))
    for folder in (made, plain):
        record = json.loads((folder / "ml-project" / ".template.json").read_text(encoding="utf-8"))
        assert record["version"] == version_of(ROOT)
        assert record["commit"] == head
        assert record["template"] == str(clone)
    state = json.loads((made / "ml-project" / ".cruft.json").read_text(encoding="utf-8"))
    assert state["commit"] == head
