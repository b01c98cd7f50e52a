"""Versions: of the template, in projects, and from each to the newest over a person's work."""

import datetime
import itertools
import json
import os
import re
import shutil
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
    git(tmp_path, "clone", "--quiet", "--no-tags", str(ROOT), str(folder))
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


@pytest.fixture
def project(clone: Path, tmp_path: Path) -> Path:
    """A project that was made without cruft from the clone, and on which a person has worked."""
    options = ["--no-input", "--default-config", "--output-dir", str(tmp_path / "services")]
    # Rendered once more, so the description has braces.
    description = "description={% raw %}Fills {{ gaps }} and {% x %}.{% endraw %}"
    answers = ["mlops=basic", description]
    updates.run(tmp_path, "cookiecutter", *options, f"git+{clone.as_uri()}", *answers)
    project = tmp_path / "services" / "ml-project"
    updates.commit_all(project)
    replace(project / "Makefile", r"\Z", "\nmine:\n\t@echo mine\n")
    replace(project / "SECURITY.md", "within a week", "within a day")
    (project / "CODEOWNERS").unlink()
    (project / "notes.md").write_text("mine\n")
    updates.commit_all(project)
    return project


def replace(path: Path, pattern: str, text: str) -> None:
    path.write_text(re.sub(pattern, text, path.read_text("utf-8"), count=1), encoding="utf-8")


def newer_template(clone: Path) -> None:
    """Change what the person has changed too: elsewhere, a file they deleted, one that moves."""
    source = clone / "{{cookiecutter.project_slug}}"
    replace(source / "Makefile", r"\A", "# A newer template.\n")
    replace(source / "Makefile", r"git clean .*", "git clean -fdX")  # the end of the last target
    replace(source / "CODEOWNERS", r"\Z", "# newer\n")
    git(source, "mv", "SECURITY.md", "docs/REPORTING.md")
    updates.commit_all(clone)


def update(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(updates.UPDATE), *options]
    environment = {**os.environ, "PATH": PATH}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def test_an_update_keeps_what_a_person_did_and_names_conflicts(clone: Path, project: Path) -> None:
    newer_template(clone)
    done = update(project)
    assert done.returncode == 0, done.stderr
    assert "It has no versions (tags such as v1.0.0): this is its newest commit." in done.stdout
    makefile = (project / "Makefile").read_text(encoding="utf-8")
    assert makefile.startswith("# A newer template.\n")
    assert makefile.endswith("@echo mine\n")
    assert "- `CODEOWNERS`" in done.stdout
    assert not (project / "CODEOWNERS").exists()
    assert not (project / "SECURITY.md").exists()
    assert "within a day" in (project / "docs" / "REPORTING.md").read_text(encoding="utf-8")
    assert (project / "notes.md").read_text() == "mine\n"
    record = json.loads((project / ".template.json").read_text(encoding="utf-8"))
    assert record["commit"] == git(clone, "rev-parse", "HEAD")
    assert record["answers"]["mlops"] == "basic"
    assert record["answers"]["description"] == "Fills {{ gaps }} and {% x %}."

    refused = update(project)
    assert refused.returncode != 0
    assert "commit or stash" in refused.stderr
    updates.commit_all(project)
    updates.run(project, "cruft", "check")
    # What both have changed, in a file that an earlier update has merged.
    replace(project / "Makefile", "A newer template", "Our template")
    updates.commit_all(project)
    source = clone / "{{cookiecutter.project_slug}}"
    replace(source / "Makefile", "A newer template", "The newest template")
    updates.commit_all(clone)
    done = update(project, "--commit")
    assert done.returncode == 0, done.stderr
    assert "- `Makefile`" in done.stdout
    assert git(project, "status", "--porcelain") == ""
    makefile = (project / "Makefile").read_text(encoding="utf-8")
    assert "Our template" in makefile
    assert "The newest template" in makefile
    assert makefile.count("<<<<<<<") == 1
    assert "Nothing to do" in update(project).stdout


def test_a_project_inside_another_repository_is_updated(clone: Path, project: Path) -> None:
    shutil.rmtree(project / ".git")
    git(project.parent.parent, "init", "--quiet")
    (project.parent.parent / ".gitignore").write_text("/template/\n")
    updates.commit_all(project.parent.parent)
    newer_template(clone)
    done = update(project)
    assert done.returncode == 0, done.stderr
    assert (project / "Makefile").read_text("utf-8").startswith("# A newer template.\n")
    assert "within a day" in (project / "docs" / "REPORTING.md").read_text(encoding="utf-8")
    changed = git(project.parent.parent, "status", "--porcelain").splitlines()
    assert all("services/ml-project/" in line for line in changed)


def test_an_update_that_cannot_be_made_is_one_line_and_changes_nothing(project: Path) -> None:
    for options, reason in {
        ("--template", "/nowhere"): "'/nowhere' does not appear to be a git repository",
        ("--answer", "mlops=ful"): "ful provided for choice variable mlops",
        ("--answer", "mlop=full"): "the template does not ask for mlop",
    }.items():
        done = update(project, *options)
        assert done.returncode == 1
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert git(project, "status", "--porcelain") == ""


def test_an_update_goes_to_the_newest_version_and_no_further_unless_told(
    clone: Path, project: Path
) -> None:
    start = git(clone, "rev-parse", "--short=7", "HEAD")
    commits = {"99.0.0": "", "99.10.0": "", "99.9.0": ""}  # 99.10.0 is above 99.9.0
    for number in commits:
        unreleased(clone, f"- What {number} brings.")
        replace(clone / "{{cookiecutter.project_slug}}" / "SECURITY.md", r"\Z", f"{number}\n")
        updates.commit_all(clone)
        if number != "99.9.0":
            release.release(clone, number)
        commits[number] = git(clone, "rev-parse", "--short=7", "HEAD")
    git(clone, "tag", "v99.9.0", commits["99.0.0"])
    git(clone, "tag", "nightly")

    done = update(project)
    assert done.returncode == 0, done.stderr
    of_what = f"The template at {clone.as_uri()} from {version_of(ROOT)} ({start})"
    assert f"{of_what} to 99.10.0 ({commits['99.10.0']}).\n" in done.stdout
    assert (project / "SECURITY.md").read_text("utf-8").endswith("99.0.0\n99.10.0\n")
    updates.commit_all(project)
    assert f"Nothing to do: 99.10.0 ({commits['99.10.0']}) is" in update(project).stdout

    done = update(project, "--checkout", "HEAD", "--commit")
    assert f"to 99.10.0 ({commits['99.9.0']}).\n" in done.stdout
    assert "Nothing to do" in update(project).stdout  # it does not go back to the version
    done = update(project, "--answer", "description=New words.")
    assert done.returncode == 0, done.stderr
    record = json.loads((project / ".template.json").read_text(encoding="utf-8"))
    assert record["answers"]["description"] == "New words."
    assert record["commit"].startswith(commits["99.9.0"])


@pytest.mark.slow
def test_an_answer_can_be_changed_by_an_update(clone: Path, tmp_path: Path) -> None:
    for form in ("basic", "full"):
        options = ["--no-input", "--default-config", "--output-dir", str(tmp_path / form)]
        answers = ["--extra-context", json.dumps({"mlops": form})]
        updates.run(tmp_path, "cruft", "create", *options, *answers, str(clone))
        updates.commit_all(tmp_path / form / "ml-project")
    done = update(tmp_path / "basic" / "ml-project", "--answer", "mlops=full", "--commit")
    assert done.returncode == 0, done.stderr
    trees = {
        git(tmp_path / form / "ml-project", "rev-parse", "HEAD:") for form in ("basic", "full")
    }
    assert len(trees) == 1


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The files of a project that is made now, as the hash of git's tree."""
    folder = tmp_path_factory.mktemp("fresh")
    options = ["--no-input", "--default-config", "--output-dir", str(folder), "--checkout", "HEAD"]
    updates.run(folder, "cruft", "create", *options, str(ROOT))
    updates.commit_all(folder / "ml-project")
    return git(folder / "ml-project", "rev-parse", "HEAD:")


VERSIONS = pytest.mark.parametrize(
    "version", release.versions(), ids=lambda version: version.number
)


@pytest.mark.slow
@with_history
@VERSIONS
def test_a_project_without_edits_becomes_equal_to_a_new_one(
    version: release.Version, fresh: str, tmp_path: Path
) -> None:
    project = updates.make(version.commit, tmp_path / "made")
    updates.merge(project, "--commit")
    assert git(project, "rev-parse", "HEAD:") == fresh


@pytest.mark.slow
@with_history
@VERSIONS
def test_an_update_from_every_version_has_conflicts_only_where_a_person_was(
    version: release.Version,
) -> None:
    names = [name for name, (_, update) in updates.SITUATIONS.items() if update is updates.merge]
    found = {name: set(files) for name, files in updates.outcomes(version.commit, names).items()}
    assert not found["untouched"] | found["deletions"] | found["linked"]
    assert found["edits"] <= set(updates.EDITS)
    task = f"{updates.PACKAGE}/task/"
    assert all(name.startswith(task) or name == "tests/test_task.py" for name in found["own task"])
    assert found["own task in `skip`"] <= {"pyproject.toml"}  # where the person wrote `skip`


@pytest.mark.slow
@with_history
def test_every_module_of_an_updated_project_can_be_imported(
    environment: Path, tmp_path: Path
) -> None:
    project = updates.make("e948870", tmp_path / "made")
    updates.edits(project)
    updates.commit_all(project)
    updates.merge(project)
    assert updates.conflicts(project) == ["Dockerfile"]
    (project / "all_modules.py").write_text(EVERY_MODULE, encoding="utf-8")
    updates.run(project, str(environment / "python"), "all_modules.py")


EVERY_MODULE = """
import importlib, pkgutil, sys

sys.path.insert(0, "src")
import ml_project

names = [module.name for module in pkgutil.walk_packages(ml_project.__path__, "ml_project.")]
names = [name for name in names if "migrations" not in name and "__main__" not in name]
assert "ml_project.mine" in names
for name in names:
    importlib.import_module(name)
"""
