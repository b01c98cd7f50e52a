"""An organisation answers once and lays its own files over every project, or is told why not."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import cookiecutter, pyproject

CI = ".github/workflows/ci.yml"
NAMED = "# {{ cookiecutter.package_name }} of {{ cookiecutter.github_username }}\n"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def overlays(tmp_path: Path) -> Path:
    return write(
        tmp_path / "overlays",
        {
            "README.md": "What this is.",
            "organisation/files/SECURITY.md": NAMED,
            "organisation/files/src/{{cookiecutter.package_name}}/acme.py": '"""Ours."""\n',
            "organisation/replaces": "SECURITY.md\n",
            f"ci/github/files/{CI}": f"on: push\n{NAMED}env: ${{{{ github.token }}}}\n",
            "ci/github/replaces": CI,
            "ci/gitlab/files/gitlab.md": "gitlab\n",
            "task/forecasting/mlops/full/files/loop.md": "never\n",
        },
    )


def bake(folder: Path, overlays: object, *more: str) -> subprocess.CompletedProcess[str]:
    answers = ["--no-input", "project_slug=reader", f"organisation_overlays={overlays}"]
    return cookiecutter(folder, *answers, *more)


def test_an_organisation_s_files_are_laid_over_the_project(tmp_path: Path, overlays: Path) -> None:
    done = bake(tmp_path, overlays)
    assert done.returncode == 0, done.stderr
    assert f"From your organisation: {CI}, SECURITY.md, src/reader/acme.py" in done.stdout
    project = tmp_path / "reader"
    assert (project / "SECURITY.md").read_text() == "# reader of your-name\n"
    assert "${{ github.token }}" in (project / CI).read_text()
    assert (project / "src" / "reader" / "acme.py").exists()
    names = {path.name for path in project.iterdir()}
    assert not names & {"gitlab.md", "loop.md", "organisation"}
    assert not [name for name in names if name.startswith(".organisation")]
    record = json.loads((project / ".template.json").read_text())
    assert record["answers"]["organisation_overlays"] == str(overlays)

    # Made again, its own files are no longer the template's; what a person keeps stays.
    (project / "SECURITY.md").write_text("mine")
    assert bake(tmp_path, overlays, "-f", "-s").returncode == 0
    assert (project / "SECURITY.md").read_text() == "mine"
    assert bake(tmp_path, overlays, "-f").returncode == 0
    assert (project / "SECURITY.md").read_text() == "# reader of your-name\n"


def test_overlays_of_a_git_address_are_of_the_version_that_it_names(
    tmp_path: Path, overlays: Path
) -> None:
    git = ["git", "-C", str(overlays), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    write(overlays, {"organisation/files/later.md": "later"})
    for command in (["add", "-A"], ["commit", "-qm", "y"]):
        subprocess.run([*git, *command], check=True)
    first, newest = (
        subprocess.run([*git, "rev-parse", name], capture_output=True, text=True).stdout.strip()
        for name in ("v1", "HEAD")
    )
    address = overlays.as_uri()
    for number, (version, commit) in enumerate({"@v1": first, "": newest}.items()):
        done = bake(tmp_path / str(number), address + version)
        assert done.returncode == 0, done.stderr
        project = tmp_path / str(number) / "reader"
        assert (project / "later.md").exists() == (not version)
        assert json.loads((project / ".template.json").read_text())["overlays_commit"] == commit
    done = bake(tmp_path / "none", f"{address}@v2")
    assert "has no version v2" in done.stderr
    assert not list((tmp_path / "none").glob("*"))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"organisation/files/Makefile": "x"}, "Makefile replaces a file of the template"),
        ({"organisation/files/a.md": "{{ cookiecutter.email }}"}, "{{ cookiecutter.email }}"),
        ({"organisation/files/{{cookiecutter.x}}/a.md": ""}, "{{cookiecutter.x}}"),
        ({"cy/github/files/a.md": ""}, "cy is no question"),
        ({"ci/gitlb/files/a.md": ""}, "ci/gitlb is no answer"),
    ],
)
def test_overlays_that_cannot_be_meant_are_refused_and_nothing_stays(
    tmp_path: Path, overlays: Path, files: dict[str, str], reason: str
) -> None:
    write(overlays, files)
    done = bake(tmp_path / "out", overlays)
    assert done.returncode != 0
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_a_link_in_overlays_is_refused(tmp_path: Path, overlays: Path) -> None:
    (overlays / "organisation" / "files" / "a.md").symlink_to(tmp_path)
    assert "a.md is a link" in bake(tmp_path / "out", overlays).stderr


@pytest.mark.parametrize("address", ["overlays", "/no/such/folder", "git@host"])
def test_an_address_where_no_overlays_can_be_is_refused_before_anything_is_written(
    tmp_path: Path, overlays: Path, address: str
) -> None:
    done = bake(tmp_path / "out", address, "email=nobody")
    assert "organisation_overlays" in done.stderr
    assert "email" in done.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_an_organisation_answers_once(tmp_path: Path, overlays: Path) -> None:
    answers = {"github_username": "acme", "license": "Proprietary", "ci": "gitlab"}
    answers["organisation_overlays"] = str(overlays)
    config = write(tmp_path, {"acme.yaml": json.dumps({"default_context": answers})}) / "acme.yaml"
    defaults = ("--config-file", str(config))
    done = cookiecutter(tmp_path, "--no-input", "project_slug=reader", defaults=defaults)
    assert done.returncode == 0, done.stderr
    project = tmp_path / "reader"
    assert "gitlab.com/acme/reader" in pyproject(project)["project"]["urls"]["Repository"]
    assert (project / ".gitlab-ci.yml").exists()
    assert (project / "SECURITY.md").read_text() == "# reader of acme\n"
