"""Update projects of every version to this one, over what a person did; count conflicts.

    python scripts/updates.py [--page]

Each project is made at a version, committed, changed, committed, and updated to the last commit of
this repository, by the project's scripts/update.py and by cruft alone: an image project from every
version, others from a few. --page writes the table into docs/updating.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import release

TEMPLATE = release.TEMPLATE
PACKAGE = "src/ml_project"
UPDATE = TEMPLATE / "{{cookiecutter.project_slug}}" / "scripts" / "update.py"
SKIP = [f"{PACKAGE}/task", "tests/quick.py", "tests/test_task.py", "configs"]
OTHERS = [  # version and answers
    (number, {"task": task, "mlops": form})
    for number in ("0.8.0", "0.5.0")
    for task, form in (("recommendation", "basic"), ("forecasting", "full"))
]
BEGIN, END = "<!-- updates:begin, rewritten by make updates -->\n", "<!-- updates:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--page", action="store_true", help="write into docs/updating.md")
    options = parser.parse_args()
    versions = {version.number: version for version in release.versions()}
    found = {version: outcomes(version.commit) for version in versions.values()}
    for number, answers in OTHERS:
        version = versions[number]
        row = version._replace(number=f"{number} ({' '.join(answers.values())})")
        found[row] = outcomes(version.commit, MERGED, **answers)
    text = table(found)
    print(text)
    if options.page:
        page = TEMPLATE / "docs" / "updating.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def outcomes(commit: str, names: Sequence[str] = (), **answers: str) -> dict[str, list[str]]:
    """The files in conflict after an update of a project of this commit, in each situation."""
    names = names or list(SITUATIONS)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        made = {
            linked: make(commit, Path(folder, str(linked)), linked, **answers)
            for linked in {name == "linked" for name in names}
        }
        for situation in names:
            change, update = SITUATIONS[situation]
            project = made[situation == "linked"]
            first = release.git(project, "rev-parse", "HEAD")
            marks = change(project)
            commit_all(project)
            update(project)
            found[situation] = conflicts(project)
            problems = lost(project, marks) + broken(project, found[situation])
            assert not problems, f"{commit}, {situation}: {problems}"
            print(commit, situation, *found[situation], flush=True)
            restore(project, first)
    return found


def restore(project: Path, commit: str) -> None:
    release.git(project, "reset", "--quiet", "--hard", commit)
    release.git(project, "clean", "--quiet", "-d", "--force")


def make(commit: str, folder: Path, linked: bool = False, **answers: str) -> Path:
    """A project made at a commit, by cruft or by cookiecutter and then linked; committed."""
    folder.mkdir(exist_ok=True)
    context = ("--extra-context", json.dumps(answers))
    options = ("--no-input", "--default-config", "--checkout", commit, "--output-dir", str(folder))
    if linked:  # of a plain path cookiecutter takes the files as they are, whatever --checkout says
        given = [f"{name}={answer}" for name, answer in answers.items()]
        run(folder, "cookiecutter", *options, f"git+{TEMPLATE.as_uri()}", *given)
    else:
        run(folder, "cruft", "create", *options, *context, str(TEMPLATE))
    (project,) = folder.iterdir()
    if linked:
        link = ("cruft", "link", "--no-input", "--checkout", commit, *context)
        run(project, *link, str(TEMPLATE))
    commit_all(project)
    return project


def merge(project: Path, *options: str) -> None:
    run(project, sys.executable, str(UPDATE), "--checkout", "HEAD", *options, accepted=(0, 1))


def patch(project: Path) -> None:
    run(project, "cruft", "update", "--skip-apply-ask")


def conflicts(project: Path) -> list[str]:
    """The files with conflicts, or beside which are hunks that cruft could not apply."""
    marked = release.git(project, "diff", "--name-only", "--diff-filter=U").splitlines()
    return sorted(marked + [str(path.relative_to(project)) for path in project.rglob("*.rej")])


# By file: where a line is found and what a person makes of it. `fit` was once called `loop`.
SCHEDULE = (r"\Z", "\n\ndef mine_schedule() -> float:\n    return 0.5\n")
EDITS = {
    "configs/default.yaml": (r"epochs: \d+", "epochs: 777"),
    "README.md": (r"No run has been reported yet.*", "| Network | 98.7654 |"),
    "pyproject.toml": (r"\ndependencies = \[", '\ndependencies = [\n    "mine-geometry~=2.1",'),
    "Makefile": (r"\Z", "\nminetarget: ## ours\n\t@echo mine\n"),
    "Dockerfile": (r"\Z", "LABEL minelabel=1\n"),
    "constraints.txt": (r"\nnumpy==.*", "\nnumpy==2.4.99"),
    f"{PACKAGE}/serving/settings.py": (r"(port: int = .*)8000", r"\g<1>8077"),
    f"{PACKAGE}/training/fit.py": SCHEDULE,
    f"{PACKAGE}/training/loop.py": SCHEDULE,
    "tests/test_config.py": (r"\Z", "\n\ndef test_mine() -> None:\n    assert True\n"),
}


# What a person did. Each returns marks: words that must still be somewhere after the update, or
# with a minus files that must still be missing.


def untouched(project: Path) -> list[str]:
    return []


def edits(project: Path) -> list[str]:
    """Settings, results, a dependency, a target, versions, core code, a test, new files."""
    for name, (pattern, replacement) in EDITS.items():
        path = project / name
        if path.exists() or not name.startswith(f"{PACKAGE}/training/"):
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
    names = ["Dockerfile", ".pre-commit-config.yaml", "tests/test_bundle.py"]
    names += [f"configs/{min(path.name for path in project.glob('configs/[!dl]*.yaml'))}"]
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
    text = path.read_text(encoding="utf-8")
    if "\nskip = [\n" not in text:  # of a version without it: written where it is now
        text = text.replace("\n[tool.pytest", "\n[tool.cruft]\nskip = [\n]\n\n[tool.pytest")
    lines = "".join(f"    {json.dumps(name)},\n" for name in SKIP)
    path.write_text(text.replace("\nskip = [\n", f"\nskip = [\n{lines}"), encoding="utf-8")
    return own_task(project)


SITUATIONS: dict[str, tuple[Callable[[Path], list[str]], Callable[[Path], None]]] = {
    "untouched": (untouched, merge),
    "linked": (untouched, merge),
    "deletions": (deletions, merge),
    "edits": (edits, merge),
    "edits, cruft alone": (edits, patch),
    "own task": (own_task, merge),
    "own task, cruft alone": (own_task, patch),
    "own task in `skip`": (own_task_in_skip, merge),
}

MERGED = [name for name, (_, update) in SITUATIONS.items() if update is merge and name != "linked"]


def lost(project: Path, marks: list[str]) -> list[str]:
    """The marks of a person that an update took."""
    listed = ("ls-files", "--cached", "--others", "--exclude-standard")
    names = release.git(project, *listed).splitlines()
    paths = [project / name for name in names if not name.endswith((".rej", ".png", ".npz"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
    missing = [mark for mark in marks if mark[0] != "-" and mark not in text]
    return missing + [mark for mark in marks if mark[0] == "-" and (project / mark[1:]).exists()]


def broken(project: Path, conflicts: list[str]) -> list[str]:
    """What ruff finds in the files without conflicts: syntax errors, names not defined or used."""
    unfinished = ",".join(["*.rej", *(name.removesuffix(".rej") for name in conflicts)])
    options = ("--quiet", "--no-cache", "--select=E9,F", "--extend-exclude", unfinished)
    text = run(project, "ruff", "check", *options, accepted=(0, 1))
    return [text] if text else []


def table(found: dict[release.Version, dict[str, list[str]]]) -> str:
    """How many files are in conflict, and which after `make update`."""
    titles = " | ".join(name[0].upper() + name[1:] for name in SITUATIONS)
    lines = [f"| From | Commit | {titles} |", "|---" * (len(SITUATIONS) + 2) + "|"]
    where: dict[str, list[str]] = {}
    all_numbers = [version.number for version in found]
    for version, situations in found.items():
        counts = " | ".join(
            str(len(situations[name])) if name in situations else "" for name in SITUATIONS
        )
        lines.append(f"| {version.number} | `{version.commit}` | {counts} |")
        for situation, files in situations.items():
            if files and SITUATIONS[situation][1] is merge:
                named = ", ".join(f"`{name}`" for name in sorted({plain(name) for name in files}))
                where.setdefault(f"{situation}: {named}", []).append(version.number)
    lines += ["", "Where they are after `make update`:", ""]
    for words, numbers in where.items():
        lines.append(f"- {', '.join(numbers) if numbers != all_numbers else 'all'}, {words}")
    return "\n".join(lines) + "\n"


def plain(name: str) -> str:
    """A file's name for the page; those of the task together."""
    name = name.replace(PACKAGE, "src/<package>")
    return "src/<package>/task" if "/task/" in name else name


def commit_all(project: Path) -> None:
    release.git(project, "add", "--all")
    name = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    release.git(project, *name, "commit", "--quiet", "--allow-empty", "--message", "Work")


def run(folder: Path, *command: str, accepted: Sequence[int] = (0,)) -> str:
    """Run a program of this environment; its output, with its errors."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode in accepted, done.stdout
    return done.stdout


if __name__ == "__main__":
    main()
