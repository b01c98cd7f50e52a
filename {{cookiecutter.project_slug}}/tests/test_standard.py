"""`make standard` finds each defect that is planted, and calls a project without any right."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import pytest
from scripts import licences, origin, standard

RUN, LATER = "20260101-000000", "20260102-000000"
CI = "".join(f"- run: {step} # a step\n" for step in standard.CI_STEPS)
CARD = "".join(f"## {name}\n\nText.\n\n" for name in standard.CARD_SECTIONS)
PAGE = f"{licences.BEGIN}\n| torch | BSD-3-Clause | train |\n| psycopg | LGPL-3.0-only | server |\n"
PAGE += f"{licences.END}\n"
NO_RESULTS = f"{standard.NO_RESULTS}: train one."
PYPROJECT = """\
[project]
name = "reader"
dependencies = ["numpy~=2.4"]
optional-dependencies.train = ["PyYAML>=6"]
"""
LOCK = "numpy==2.4.6 ; python_full_version < '3.12'\nnumpy==2.5.5\npyyaml==6.0.3\n"


def write(files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def git(*arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


def commit() -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", "x")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commit a small project whose champion is recorded and shown."""
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "APP_DEPLOYMENT_DIR"):
        monkeypatch.delenv(name, raising=False)
    digest = hashlib.sha256(b"{}").hexdigest()
    champion = {"version": RUN, "bundle": "bundles/a", "manifest_sha256": digest}
    write(
        {
            "pyproject.toml": PYPROJECT,
            "constraints.txt": LOCK,
            ".github/workflows/ci.yml": CI,
            ".gitignore": "/deployment/\n/runs/\n/work/\n.env\n",
            ".template.json": {"template": "gh:a/b", "commit": "c", "answers": {"ci": "github"}},
            "README.md": "**Good.**\n",
            "MODEL_CARD.md": CARD,
            f"docs/experiments/{RUN}/record.json": {"info": {"started": "2026-01-01"}},
            "docs/experiments/written.json": {"run": RUN, "files": {}},
            "deployment/deployment.json": {"champion": champion},
            "deployment/bundles/a/manifest.json": "{}",
            "docs/licences.md": PAGE,
            "src/reader/cli.py": "print('pages match')\n",
        }
    )
    git("init", "--quiet", "--initial-branch=main")
    commit()
    return tmp_path


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    """Install two packages, as far as their licences are concerned."""
    installed = {"torch": ("BSD-3-Clause", "train"), "psycopg": ("LGPL-3.0-only", "server")}
    monkeypatch.setattr(standard, "collect", lambda pyproject: installed)
    return installed


def found(
    check: Callable[[origin.Project], str], folder: Path, offline: bool = True
) -> dict[str, str]:
    return standard.judge(check, origin.Project(folder / "work", offline))


def test_a_project_without_a_defect_has_no_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(sys, "argv", ["standard", "--offline", "--json", str(folder)])
    assert standard.main() == 0
    said = json.loads(capsys.readouterr().out)
    states = {each["check"]: each["state"] for each in said["checks"]}
    offline = {"template", "files", "secrets"}
    assert states == {name: "not checked" if name in offline else "ok" for name in states}
    assert (said["project"], said["template"], said["problems"]) == ("reader", "gh:a/b", 0)
    Path("MODEL_CARD.md").unlink()
    monkeypatch.setattr(sys, "argv", ["standard", "--offline", str(folder)])
    assert standard.main() == 1
    assert "problem      card        MODEL_CARD.md is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "name", "content", "text"),
    [
        (standard.ci, ".github/workflows/ci.yml", CI.replace("- run: make test", "#"), "make test"),
        (standard.ci, ".github/workflows/ci.yml", CI.replace("make check", "true"), "make check"),
        (standard.ci, ".github/workflows/ci.yml", f"{CI}continue-on-error: true", "may fail"),
        (standard.lock, "constraints.txt", LOCK.replace("2.5.5", "3.0.0"), "3.0.0 for numpy~=2.4"),
        (standard.lock, "constraints.txt", LOCK.replace("pyyaml", "x"), "nothing for PyYAML>=6"),
        (standard.results, "src/reader/cli.py", "print('p.md: changed; run: x')\n1 / 0", "p.md"),
        (standard.results, "src/reader/cli.py", "exit('error: train.epochs')", "train.epochs"),
        (standard.results, "README.md", NO_RESULTS, "has no results"),
        (standard.card, "MODEL_CARD.md", CARD.replace("Text.", "", 1), "Intended use"),
        (standard.card, "MODEL_CARD.md", f"{CARD}{NO_RESULTS}", "has no results"),
        (standard.deployment, "deployment/bundles/a/manifest.json", "{ }", "was changed"),
        (standard.deployment, "deployment/deployment.json", "{", "JSONDecodeError"),
        (standard.licences, "docs/licences.md", PAGE.replace("BSD", "MIT"), "lacks | torch | BSD"),
        (standard.large, "big.bin", "x" * (standard.LARGEST + 1), "big.bin (1.0 MB)"),
    ],
)
def test_a_planted_defect_is_a_problem(
    folder: Path, check: Callable[[origin.Project], str], name: str, content: str, text: str
) -> None:
    write({name: content})
    git("add", "--all")
    problem = found(check, folder)
    assert problem["state"] == "problem"
    assert text in problem["text"]


def test_missing_ci_is_a_problem_unless_the_project_was_made_without(folder: Path) -> None:
    Path(".github/workflows/ci.yml").unlink()
    assert found(standard.ci, folder)["state"] == "problem"
    write({".template.json": {"answers": {"ci": "none"}}})
    assert found(standard.ci, folder)["state"] == "not checked"


@pytest.mark.skipif(os.name == "nt", reason="its program is a script of the shell")
def test_a_failed_newest_run_of_ci_is_a_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    said = {}
    for answer in ("echo failure", "echo success", "true", "echo no token >&2; false"):
        write({"gh": f"#!/bin/sh\n{answer}\n"})
        Path("gh").chmod(0o755)
        result = found(standard.ci, folder, offline=False)
        said[answer] = (result["state"], result["text"].rpartition(" ")[2])
    assert list(said.values()) == [
        ("problem", "failure"),
        ("ok", "pass"),
        ("ok", "yet"),
        ("not checked", "token"),
    ]


def test_an_old_lock_is_a_problem_and_the_project_may_say_what_is_old(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({"constraints.txt": f"{LOCK}old==1\n"})
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2020-01-01T00:00:00+00:00")
    commit()
    assert "more than 90" in found(standard.lock, folder)["text"]
    write({"pyproject.toml": f"{PYPROJECT}\n[tool.standard]\nmax-days = 100000\n"})
    assert found(standard.lock, folder)["state"] == "ok"


def test_a_shallow_clone_does_not_know_the_lock_s_age(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({"more.txt": ""})
    commit()
    git("clone", "--quiet", "--depth", "1", folder.as_uri(), "work/clone")
    monkeypatch.chdir("work/clone")
    assert "shallow" in found(standard.lock, folder)["text"]


def test_results_older_than_the_model_are_a_problem(folder: Path) -> None:
    path = f"docs/experiments/{LATER}/record.json"
    write({path: {"info": {"started": "2026-01-02"}}})
    assert found(standard.results, folder)["state"] == "ok"
    deployment = json.loads(Path("deployment/deployment.json").read_text())
    deployment["champion"]["version"] = LATER
    write({"deployment/deployment.json": deployment})
    assert found(standard.results, folder)["advice"] == f'make report ARGS="--run {LATER}"'
    assert "is not committed" in found(standard.deployment, folder)["text"]
    Path(path).unlink()
    assert "has no record" in found(standard.deployment, folder)["text"]


def test_results_older_than_the_newest_run_are_a_problem_where_nothing_is_deployed(
    folder: Path,
) -> None:
    Path("deployment/deployment.json").unlink()
    write({f"runs/{LATER}/run.json": {"started": "2026-01-02"}})
    assert found(standard.results, folder)["state"] == "ok"  # it was not evaluated
    write({f"runs/{LATER}/evaluation.json": {}})
    assert found(standard.results, folder)["state"] == "problem"
    assert found(standard.deployment, folder)["state"] == "not checked"


def test_before_the_first_result_nothing_is_wrong(folder: Path) -> None:
    Path("deployment/deployment.json").unlink()
    write({"README.md": NO_RESULTS, "MODEL_CARD.md": CARD + NO_RESULTS})
    for check in (standard.results, standard.card):
        assert found(check, folder)["state"] == "not checked"


def test_without_the_environment_results_are_not_checked(folder: Path) -> None:
    write({"src/reader/cli.py": "import no_such_module"})
    assert found(standard.results, folder)["advice"] == "make setup"


def test_what_gitignore_names_must_not_be_committed(folder: Path) -> None:
    write({".env": "KEY=1"})
    git("add", "--force", ".env")
    assert "committed: .env" in found(standard.large, folder)["text"]


def test_in_ci_a_changed_file_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write({"README.md": "changed"})
    assert found(standard.clean, folder)["state"] == "not checked"
    monkeypatch.setenv("CI", "true")
    assert found(standard.clean, folder)["text"] == "changed: README.md"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_a_possible_secret_is_named_with_its_place(folder: Path) -> None:
    write({"Makefile": "secrets:\n\t@echo 'Location:    notes.md:3'; false\n"})
    assert "notes.md:3" in found(standard.secrets, folder, offline=False)["text"]
    write({"Makefile": "secrets:\n\t@echo 'no network' >&2; false\n"})
    assert found(standard.secrets, folder, offline=False)["state"] == "not checked"
    write({"Makefile": "secrets:\n\t@true\n"})
    assert found(standard.secrets, folder, offline=False)["state"] == "ok"


def test_differences_from_the_template_are_told_by_kind(folder: Path) -> None:
    core, own = "src/reader/cli.py", "src/reader/task/model.py"
    made = {"Makefile": "a", "ruff.toml": "b", core: "", own: "d", "pyproject.toml": PYPROJECT}
    write({f"work/out/reader/{name}": text for name, text in made.items()})
    write({"Makefile": "mine", own: "mine", "pyproject.toml": f"{PYPROJECT}readme = 'a.md'\n"})
    kinds = origin.differences(folder / "work" / "out" / "reader")
    assert kinds["standard"] == ["Makefile", "ruff.toml"]
    assert kinds["core"] == [core]
    assert kinds["own"] == ["pyproject.toml", own]
    assert "Makefile, ruff.toml (deleted)" in found(origin.files, folder)["text"]
    accepted = f'{PYPROJECT}\n[tool.standard]\naccepted = ["Makefile", "ruff.*"]\n'
    write({"pyproject.toml": accepted})
    assert found(origin.files, folder)["state"] == "ok"
    write({"pyproject.toml": f"{accepted}\n[tool.pytest]\n"})
    assert "pyproject.toml" in found(origin.files, folder)["text"]


def test_cruft_knows_template_commit_and_answers_better(folder: Path) -> None:
    write({".template.json": {"template": None, "commit": None, "version": "1.0.0", "answers": {}}})
    context = {"cookiecutter": {"task": "x", "_template": "y"}}
    write({".cruft.json": {"template": "gh:a/b", "commit": "d", "context": context}})
    record = origin.Project(folder / "work", offline=True).record
    assert (record["template"], record["commit"], record["version"]) == ("gh:a/b", "d", "1.0.0")
    assert record["answers"] == {"task": "x"}


def test_the_patch_restores_what_the_template_made(folder: Path) -> None:
    write({"work/out/reader/Makefile": "a\nb\n", "work/out/reader/ruff.toml": "c\n"})
    write({"Makefile": "a\nmine\n"})
    text = "".join(origin.patch(origin.Project(folder / "work", offline=True)))
    subprocess.run(["git", "apply"], input=text, check=True, text=True)
    assert Path("Makefile").read_text() == "a\nb\n"
    assert Path("ruff.toml").read_text() == "c\n"


def test_a_template_out_of_reach_is_no_problem_and_an_unknown_one_is(folder: Path) -> None:
    record = {"template": str(folder / "none"), "commit": "c", "answers": {}}
    write({".template.json": record})
    said = found(origin.template, folder, offline=False)
    assert said["state"] == "not checked"
    assert "out of reach" in said["text"]
    assert found(origin.files, folder)["text"] == "see template"
    Path(".template.json").unlink()
    assert found(origin.template, folder)["state"] == "problem"


def test_a_licence_that_nobody_states_is_a_problem(
    folder: Path, packages: dict[str, tuple[str, str]]
) -> None:
    packages["mystery"] = ("", "server")
    assert found(standard.licences, folder)["text"] == "no licence is stated by: mystery"


def test_licences_that_were_never_listed_are_not_checked(folder: Path) -> None:
    write({"docs/licences.md": f"{licences.BEGIN}\nNot listed yet.\n{licences.END}\n"})
    assert found(standard.licences, folder)["advice"] == "make licences"


@pytest.mark.parametrize(
    ("metadata", "stated"),
    [
        ("License-Expression: MIT\nLicense: x\n", "MIT"),
        ("License: BSD-3-Clause\nClassifier: License :: OSI :: BSD License\n", "BSD-3-Clause"),
        ("License: Dual License\nClassifier: License :: A\nClassifier: License :: B\n", "A or B"),
        ("License: UNKNOWN\nClassifier: Topic :: A\n", ""),
    ],
)
def test_a_licence_is_what_the_metadata_states(tmp_path: Path, metadata: str, stated: str) -> None:
    (tmp_path / "METADATA").write_text(f"Name: x\n{metadata}")
    assert licences.licence(PathDistribution(tmp_path)) == stated


def test_what_serves_and_trains_is_listed_and_copyleft_is_named(
    packages: dict[str, tuple[str, str]],
) -> None:
    head = licences.table(packages).splitlines()[0]
    assert head == "Copyleft: psycopg (LGPL-3.0-only, server)."
    pyproject = origin.read_toml(Path(__file__).parents[1] / "pyproject.toml")
    installed = licences.collect(pyproject)
    places = {name: installed[name][1] for name in ("fastapi", "starlette", "torch")}
    assert places == {"fastapi": "server", "starlette": "server", "torch": "train"}
    assert "pytest" not in installed  # a tool, which is not passed on
    pyproject["tool"]["standard"] = {"licences": {"fastapi": "read by hand"}}
    assert licences.collect(pyproject)["fastapi"][0] == "read by hand"
