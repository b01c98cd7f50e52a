"""Take a newer version of the template into this project, as a patch over your changes.

    python scripts/update.py [--checkout REF] [--template ADDRESS] [--commit]

Runs cruft, which uv fetches if it is not installed. A project that was made without cruft is linked
by its `.template.json` first. Names the files with conflicts; exit code 1 if there are any.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CRUFT = ("cruft",) if shutil.which("cruft") else ("uvx", "cruft==2.16.0")
RECORD, STATE = Path(".template.json"), Path(".cruft.json")
HOSTS = {
    "gh:": "https://github.com/",
    "gl:": "https://gitlab.com/",
    "bb:": "https://bitbucket.org/",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkout", metavar="REF", help="to this commit or tag, not the newest")
    parser.add_argument("--template", metavar="ADDRESS", help="where the template is now")
    parser.add_argument("--commit", action="store_true", help="commit, conflicts too; exit code 0")
    options = parser.parse_args()
    if run("git", "status", "--porcelain"):
        sys.exit("error: the work tree has changes: commit or stash them first")
    if not RECORD.exists():
        sys.exit(f"error: {RECORD} is missing, which says where this project is from: use cruft")
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    answers = json.dumps(record["answers"])
    template, before = options.template or record["template"], record["commit"]
    if STATE.exists():
        state = json.loads(STATE.read_text(encoding="utf-8"))
        template, before = options.template or state["template"], state["commit"]
        STATE.write_text(json.dumps({**state, "template": template}, indent=2), encoding="utf-8")
    elif not before:
        sys.exit(f"error: {RECORD} names no commit of the template: use cruft link")
    else:
        # cruft knows no short forms
        template = HOSTS.get(template[:3], template[:3]) + template[3:]
        run(*CRUFT, "link", "--no-input", *origin(before, answers), template)
    remember_origin(template, before, answers)
    checkout = ("--checkout", options.checkout) if options.checkout else ()
    run(*CRUFT, "update", "--skip-apply-ask", "--allow-untracked-files", *checkout)
    after = json.loads(STATE.read_text(encoding="utf-8"))["commit"]
    print(f"The template at {template} from {before[:7]} to {after[:7]}.")
    conflicts = run("git", "diff", "--name-only", "--diff-filter=U").splitlines()
    conflicts += run("git", "ls-files", "--others", "--", "*.rej").splitlines()
    print("Conflicts, to be resolved:" if conflicts else "No conflicts.")
    for name in conflicts:
        print(f"- `{name}`")
    if options.commit:
        run("git", "add", "--all")
        run("git", "commit", "--quiet", "--message", f"The template's {after[:7]}")
    return 1 if conflicts and not options.commit else 0


def origin(commit: str, answers: str) -> tuple[str, ...]:
    return "--checkout", commit, "--extra-context", answers


def remember_origin(template: str, commit: str, answers: str) -> None:
    """Store in git what the template wrote at `commit`, so that git can merge three ways.

    Git lacks the common ancestor of a file that was edited before an earlier update; without it a
    conflict anywhere makes cruft apply the whole patch by its context.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = (*origin(commit, answers), "--default-config", "--output-dir", folder)
        run(*CRUFT, "create", "--no-input", *options, template)
        paths = [path for path in Path(folder).glob("*/**/*") if path.is_file()]
        names = "\n".join(str(path) for path in paths if ".git" not in path.parts)
        run("git", "hash-object", "-w", "--no-filters", "--stdin-paths", given=names)


def run(*command: str, given: str | None = None) -> str:
    """Return what a command prints; its failure ends this program."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        sys.exit(f"error: {' '.join(command[:2])}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
