"""Merge a newer version of the template into this project; your changes stay.

    python scripts/update.py [--checkout REF] [--answer NAME=VALUE] [--template ADDRESS] [--commit]

Makes the project once as it was made and once as the template's newest version, a tag, would make
it (with cruft, which uv fetches if it is not installed), and lets git merge the difference. Exit
code 1: there are conflicts. It needs no other file, so that it runs in older projects too.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CRUFT = ("cruft",) if shutil.which("cruft") else ("uvx", "cruft==2.16.0")
RECORDS = (".cruft.json", ".template.json")  # where the project is from; always the new ones
HOSTS = {
    "gh:": "https://github.com/",
    "gl:": "https://gitlab.com/",
    "bb:": "https://bitbucket.org/",
}
GIT = ["git", "-c", "user.name=template", "-c", "user.email=template@localhost"]
GIT += ["-c", "merge.directoryRenames=false", "-c", "merge.renameLimit=9999"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkout", metavar="REF", help="to this version or commit")
    parser.add_argument("--answer", metavar="NAME=VALUE", action="append", default=[])
    parser.add_argument("--template", metavar="ADDRESS", help="where the template is now")
    parser.add_argument("--commit", action="store_true", help="commit, conflicts too; exit code 0")
    options = parser.parse_args()
    if not shutil.which(CRUFT[0]):
        sys.exit("error: updates need uv (https://docs.astral.sh/uv) or cruft")
    if run("git", "status", "--porcelain"):
        sys.exit("error: the work tree has changes: commit or stash them first")
    origin = record()
    if not origin:
        sys.exit("error: neither .cruft.json nor .template.json says where this project is from")
    if not origin["commit"]:
        sys.exit(f"error: {RECORDS[1]} names no commit of the template: use cruft link")
    before, answers = origin["commit"], origin["answers"]
    template = full_address(options.template or origin["template"])
    changed = answers | {
        name: value for name, _, value in (answer.partition("=") for answer in options.answer)
    }
    checkout, unreleased = options.checkout, ""
    if not checkout:
        tags = run("git", "ls-remote", "--tags", "--refs", "--", template).split()[1::2]
        checkout = newest(tag.removeprefix("refs/tags/") for tag in tags)
        if not checkout:
            unreleased = " It has no versions (tags such as v1.0.0): this is its newest commit."
        elif version(checkout) <= version(origin.get("version") or ""):
            checkout = before
            if changed == answers:
                print(f"Nothing to do: {named(origin)} is the newest version of {template}.")
                return 0
    with tempfile.TemporaryDirectory() as name:
        old = make(Path(name, "old"), template, before, answers)
        new = make(Path(name, "new"), template, checkout, changed)
        state = json.loads((new / RECORDS[0]).read_text(encoding="utf-8"))
        after, asked = state["commit"], state["context"]["cookiecutter"]
        if unknown := sorted(changed.keys() - answers.keys() - asked.keys()):
            sys.exit(f"error: --answer: the template does not ask for {', '.join(unknown)}")
        if after == before and changed == answers:
            print(f"Nothing to do: {template} is at {after[:7]} too.")
            return 0
        records = {name: (new / name).read_bytes() for name in RECORDS if (new / name).exists()}
        base = commit(Path(name, "old"), old, before)
        theirs = commit(Path(name, "new"), new, after, "-p", base)
    picked = subprocess.run([*GIT, "cherry-pick", "--no-commit", theirs], capture_output=True)
    # Two letters for us and them: D deleted, A added, U changed.
    states = run("git", "status", "--porcelain", "--no-renames", "-z").split("\0")
    unmerged = {state[3:]: state[:2] for state in states if "U" in state[:2] or state[:2] == "AA"}
    if picked.returncode and not unmerged:
        sys.exit(f"error: git cherry-pick: {picked.stderr.decode().strip()}")
    for name, content in records.items():
        Path(name).write_bytes(content)
    run("git", "add", "--force", "--", *records)
    now = named(record())
    print(f"The template at {template} from {named(origin)} to {now}.{unreleased}")
    deleted = [path for path, state in unmerged.items() if state == "DU"]
    if deleted:
        run("git", "rm", "--quiet", "--", *(f":/{path}" for path in deleted))
    show("Stay deleted, though the template has changed them:", deleted)
    conflicts = [path for path in unmerged if path not in deleted]
    show("Conflicts, to be resolved:", conflicts)
    if options.commit:
        run("git", "add", "--all")
        run("git", "commit", "--quiet", "--message", f"The template's {now}")
        return 0
    print("Look at it (git diff --staged), then: make setup check test; git commit")
    return 1 if conflicts else 0


def record() -> dict[str, Any]:
    """Return what is known of the project's origin: template, commit, answers, version."""
    cruft, made = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for path in map(Path, RECORDS)
    )
    answers = cruft["context"]["cookiecutter"] if cruft else made.get("answers", {})
    answers = {name: answer for name, answer in answers.items() if name[0] != "_"}
    return {**made, **cruft, "answers": answers} if made or cruft else {}


def named(record: dict[str, Any]) -> str:
    """Return version and commit for people; the version is the last one that was released."""
    commit = record["commit"][:7]
    return f"{record['version']} ({commit})" if record.get("version") else commit


def full_address(template: str) -> str:
    """Return an address that git knows: cookiecutter has short forms and prefixes."""
    template = template.removeprefix("git+")
    return HOSTS.get(template[:3], template[:3]) + template[3:]


def newest(tags: Iterable[str]) -> str:
    """Return the tag of the newest version; "" if none is of a version."""
    return max(filter(version, tags), key=version, default="")


def version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version or tag; () for another tag."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def as_text(answers: dict[str, Any]) -> dict[str, Any]:
    """Mark braces in answers as text, since cookiecutter renders answers once more."""
    begin, end = ("{" + f"% {word} %" + "}" for word in ("raw", "endraw"))
    return {
        name: f"{begin}{answer}{end}" if "{" in str(answer) else answer
        for name, answer in answers.items()
    }


def make(folder: Path, template: str, checkout: str | None, answers: dict[str, str]) -> Path:
    """Make the project as it is at a commit of the template, without what updates leave alone."""
    folder.mkdir()
    options = ["--no-input", "--default-config", "--output-dir", str(folder)]
    options += ["--extra-context", json.dumps(as_text(answers))]
    run(*CRUFT, "create", *options, *(["--checkout", checkout] if checkout else []), template)
    (made,) = folder.iterdir()
    settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    for pattern in settings.get("tool", {}).get("cruft", {}).get("skip", []):
        for path in made.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return made


def commit(folder: Path, made: Path, name: str, *parent: str) -> str:
    """Store files in this repository as a commit that no branch has; return its hash."""
    tree = folder / "tree"
    place = tree / run("git", "rev-parse", "--show-prefix").strip()
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, place)
    shutil.rmtree(place / ".git", ignore_errors=True)
    for record in RECORDS:
        (place / record).unlink(missing_ok=True)
    git_dir = run("git", "rev-parse", "--absolute-git-dir").strip()
    run("git", f"--git-dir={git_dir}", "add", "--all", "--force", folder=tree)
    written = run("git", f"--git-dir={git_dir}", "write-tree", folder=tree).strip()
    message = f"The template's {name[:7]}"
    return run(*GIT, "commit-tree", written, *parent, "-m", message).strip()


def run(*command: str, folder: Path | None = None) -> str:
    """Return what a command prints; its failure ends this program.

    In another folder git gets an index of that folder's.
    """
    env = None
    if folder:
        env = {**os.environ, "GIT_INDEX_FILE": f"{folder}.index", "GIT_WORK_TREE": str(folder)}
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", cwd=folder, env=env
    )
    if done.returncode:
        text = done.stderr or done.stdout
        reasons = [line for line in text.splitlines() if line.startswith("error: ")]
        # cruft draws a traceback in a box and says below it what was wrong
        told = f"error: {command[0]}: {' '.join(text.rpartition('╯')[2].split())}"
        sys.exit("\n".join(reasons) or told)
    return done.stdout


def show(title: str, names: list[str]) -> None:
    if names:
        print("\n".join([title, *(f"- `{name}`" for name in names)]))


if __name__ == "__main__":
    sys.exit(main())
