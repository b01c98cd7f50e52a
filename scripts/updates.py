"""Update projects of every version to this one, over what a person did; count conflicts.

    python scripts/updates.py [--page]

Each project is made with cruft at a version, committed, changed, committed, and updated to the last
commit of this repository. --page writes the table into docs/updating.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import release

TEMPLATE = release.TEMPLATE
PACKAGE = "src/ml_project"
SKIP = [f"{PACKAGE}/task", "tests/quick.py", "tests/test_task.py", "configs"]
BEGIN, END = "<!-- updates:begin, rewritten by make updates -->\n", "<!-- updates:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--page", action="store_true", help="write into docs/updating.md")
    options = parser.parse_args()
    head = release.git(TEMPLATE, "rev-parse", "HEAD")
    found = {
        version: {name: outcome(version.commit, name) for name in SITUATIONS}
        for version in release.versions()
        if not head.startswith(version.commit)
    }
    text = table(found)
    print(text)
    if options.page:
        page = TEMPLATE / "docs" / "updating.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def outcome(commit: str, situation: str) -> list[str]:
    """The files in conflict when a project of this commit is updated in this situation."""
    with tempfile.TemporaryDirectory() as folder:
        project = make(commit, Path(folder), linked=situation == "linked")
        marks = SITUATIONS[situation](project)
        commit_all(project)
        conflicts = update(project)
        assert not lost(project, marks), f"{commit}, {situation}: {lost(project, marks)}"
    print(f"{commit} {situation:<12} {len(conflicts)}  {' '.join(conflicts)}", flush=True)
    return conflicts


def make(commit: str, folder: Path, linked: bool = False) -> Path:
    """A project made at a commit, by cruft or by cookiecutter and then linked; committed."""
    options = ("--no-input", "--default-config", "--checkout", commit, "--output-dir", str(folder))
    run(folder, "cookiecutter" if linked else "cruft create", *options, str(TEMPLATE))
    (project,) = folder.iterdir()
    if linked:
        run(project, "cruft link", "--no-input", "--checkout", commit, str(TEMPLATE))
    commit_all(project)
    return project


def update(project: Path) -> list[str]:
    """Update to the template's last commit; the files that hold conflicts or lie beside them."""
    run(project, "cruft update", "--skip-apply-ask")
    return conflicts(project)


def conflicts(project: Path) -> list[str]:
    marked = release.git(project, "diff", "--name-only", "--diff-filter=U").splitlines()
    return sorted(marked + [str(path.relative_to(project)) for path in project.rglob("*.rej")])


# What a person did. Each returns marks: words that must still be somewhere after the update, or
# with a minus files that must still be missing.


def untouched(project: Path) -> list[str]:
    return []


def edits(project: Path) -> list[str]:
    """Settings, results, a dependency, a target, versions, core code, a test, new files."""
    loop = next(
        project / PACKAGE / "training" / name
        for name in ("fit.py", "loop.py")
        if (project / PACKAGE / "training" / name).exists()
    )
    changes = {
        "configs/default.yaml": (r"epochs: \d+", "epochs: 777"),
        "README.md": (r"No run has been reported yet.*", "| Network | 98.7654 |"),
        "pyproject.toml": (r"\ndependencies = \[", '\ndependencies = [\n    "mine-geometry~=2.1",'),
        "Makefile": (r"\Z", "\nminetarget: ## ours\n\t@echo mine\n"),
        "Dockerfile": (r"\Z", "LABEL minelabel=1\n"),
        "constraints.txt": (r"\nnumpy==.*", "\nnumpy==2.4.99"),
        f"{PACKAGE}/serving/settings.py": (r"(port: int = .*)8000", r"\g<1>8077"),
        str(loop.relative_to(project)): (
            r"\Z",
            "\n\ndef mine_schedule() -> float:\n    return 0.5\n",
        ),
        "tests/test_config.py": (r"\Z", "\n\ndef test_mine() -> None:\n    assert True\n"),
    }
    for name, (pattern, replacement) in changes.items():
        path = project / name
        text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1)
        assert count, name
        path.write_text(text, encoding="utf-8")
    for name in ("notes.md", f"{PACKAGE}/mine.py", "configs/mine.yaml"):
        (project / name).write_text(f"# minefile {name}\n", encoding="utf-8")
    marks = ["epochs: 777", "98.7654", "mine-geometry", "minetarget", "minelabel", "2.4.99", "8077"]
    marks += ["mine_schedule", "test_mine", "minefile notes.md", f"minefile {PACKAGE}/mine.py"]
    return marks


def deletions(project: Path) -> list[str]:
    """Files that a person does not want."""
    names = ["Dockerfile", ".pre-commit-config.yaml", "tests/test_bundle.py", "configs/mnist.yaml"]
    for name in names:
        (project / name).unlink()
    return [f"-{name}" for name in names]


def own_task(project: Path) -> list[str]:
    """A task written anew: nothing of the template's is left in its files."""
    files = sorted((project / PACKAGE / "task").glob("*.py"))
    for path in [*files, project / "tests" / "test_task.py"]:
        path.write_text(f'"""Ours."""\n\nMINE = "mine {path.name}"\n', encoding="utf-8")
    return [f"mine {path.name}" for path in files]


def own_task_in_skip(project: Path) -> list[str]:
    """The same, named in `[tool.cruft] skip`."""
    path = project / "pyproject.toml"
    text = path.read_text(encoding="utf-8").replace("[tool.cruft]\nskip = [\n", "")
    lines = "".join(f"    {json.dumps(name)},\n" for name in SKIP)
    if text == path.read_text(encoding="utf-8"):
        text += f"\n[tool.cruft]\nskip = [\n{lines}]\n"
    else:
        text = path.read_text(encoding="utf-8").replace("skip = [\n", f"skip = [\n{lines}")
    path.write_text(text, encoding="utf-8")
    return own_task(project)


SITUATIONS: dict[str, Callable[[Path], list[str]]] = {
    "untouched": untouched,
    "edits": edits,
    "deletions": deletions,
    "own task": own_task,
    "skipped task": own_task_in_skip,
    "linked": untouched,
}


def lost(project: Path, marks: list[str]) -> list[str]:
    """The marks of a person that an update took."""
    names = release.git(project, "ls-files", "--cached", "--others").splitlines()
    paths = [project / name for name in names if name.endswith((".rej", ".png", ".npz")) is False]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
    missing = [mark for mark in marks if mark[0] != "-" and mark not in text]
    return missing + [mark for mark in marks if mark[0] == "-" and (project / mark[1:]).exists()]


def table(found: dict[release.Version, dict[str, list[str]]]) -> str:
    lines = [
        "| From | Commit | " + " | ".join(name.capitalize() for name in SITUATIONS) + " |",
        "|---" * (len(SITUATIONS) + 2) + "|",
    ]
    for version, outcomes in found.items():
        counts = " | ".join(str(len(files)) for files in outcomes.values())
        lines.append(f"| {version.number} | `{version.commit}` | {counts} |")
    return "\n".join(lines) + "\n"


def commit_all(project: Path) -> None:
    release.git(project, "add", "--all")
    name = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    release.git(project, *name, "commit", "--quiet", "--allow-empty", "--message", "Work")


def run(folder: Path, command: str, *arguments: str) -> str:
    """Run cruft or cookiecutter of this environment; its output, with its errors."""
    program, *words = command.split()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, *words, *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


if __name__ == "__main__":
    main()
