"""Make a version of the template: date what is unreleased in the changelog, commit, tag.

    python scripts/release.py 1.0.0

Pushes nothing. The template's version is `VERSION` in hooks/post_gen_project.py, from where it gets
into `.template.json` of projects; its versions and their commits are the headings of CHANGELOG.md.
"""

import argparse
import datetime
import re
import subprocess
from pathlib import Path
from typing import NamedTuple, NoReturn

TEMPLATE = Path(__file__).parents[1]
HEADING = re.compile(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)(?: \((\w+)\))?$", re.M)
VERSION = re.compile(r'^VERSION = "(.*)"', re.M)


class Version(NamedTuple):
    """A version of the template, with its commit."""

    number: str
    date: str
    commit: str


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("version", help="three numbers, such as 1.0.0")
    parser.add_argument("--folder", type=Path, default=TEMPLATE, help="another clone")
    options = parser.parse_args()
    release(options.folder, options.version)
    print(f"This is version {options.version}. Publish it: git push origin main v{options.version}")


def release(folder: Path, version: str) -> None:
    """Write the version into the changelog and the hook, commit and tag; refuse if not ready."""
    changelog, hook = folder / "CHANGELOG.md", folder / "hooks" / "post_gen_project.py"
    text = changelog.read_text(encoding="utf-8")
    before, _, rest = text.partition("## Unreleased\n")
    newest = HEADING.search(rest)
    assert newest is not None
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        refuse(f"VERSION={version}: must be three numbers, such as 1.0.0")
    if numbers(version) <= numbers(newest[1]):
        refuse(f"VERSION={version}: must be above the newest version, {newest[1]}")
    if (branch := git(folder, "branch", "--show-current")) != "main":
        refuse(f"versions are made on the branch main, this is {branch or 'no branch'}")
    if git(folder, "status", "--porcelain"):
        refuse("the work tree has changes: commit or stash them")
    if not rest[: newest.start()].strip():
        refuse("CHANGELOG.md says nothing under Unreleased: write what projects gain")
    dated = f"## {version} - {datetime.date.today().isoformat()}"
    changelog.write_text(f"{before}## Unreleased\n\n{dated}\n{rest}", encoding="utf-8")
    source = VERSION.sub(f'VERSION = "{version}"', hook.read_text(encoding="utf-8"))
    hook.write_text(source, encoding="utf-8")
    git(folder, "commit", "--all", "--quiet", "--message", f"Version {version}")
    git(folder, "tag", "--annotate", f"v{version}", "--message", f"Version {version}")


def versions(folder: Path = TEMPLATE) -> list[Version]:
    """The versions in the changelog, newest first.

    A heading without a commit is of the commit that brought it: a commit cannot name itself.
    """
    text = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    found = []
    for number, date, commit in HEADING.findall(text):
        log = ("log", "--reverse", "--format=%h", f"-S## {number} - ", "--", "CHANGELOG.md")
        found.append(Version(number, date, commit or git(folder, *log).partition("\n")[0]))
    return found


def numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        refuse(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def refuse(reason: str) -> NoReturn:
    raise SystemExit(f"error: {reason}")


if __name__ == "__main__":
    main()
