"""Take a newer version of the template into this project, as a patch over your changes.

    python scripts/update.py [--checkout REF] [--template ADDRESS]

Nothing is committed. Exit code 1 names the files with conflicts. Runs cruft with uv; a project that
was made without cruft is linked by its `.template.json` first.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CRUFT = ("uvx", "cruft==2.16.0")
RECORD, STATE = Path(".template.json"), Path(".cruft.json")
HOSTS = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/", "bb:": "https://bitbucket.org/"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkout", metavar="REF", help="not the newest commit but this one or tag")
    parser.add_argument("--template", metavar="ADDRESS", help="where the template is now")
    options = parser.parse_args()
    if output("git", "status", "--porcelain"):
        sys.exit("error: the work tree has changes: commit or stash them first")
    if not RECORD.exists():
        sys.exit(f"error: {RECORD} is missing, which names the template: use cruft itself")
    answers = json.dumps(json.loads(RECORD.read_text(encoding="utf-8"))["answers"])
    if not STATE.exists():
        link(answers, options.template)
    state = json.loads(STATE.read_text(encoding="utf-8"))
    if options.template:
        state["template"] = options.template
        STATE.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    remember(state["template"], state["commit"], answers)
    checkout = ["--checkout", options.checkout] if options.checkout else []
    run(*CRUFT, "update", "--skip-apply-ask", "--allow-untracked-files", *checkout)
    conflicts = output("git", "diff", "--name-only", "--diff-filter=U").splitlines()
    conflicts += output("git", "ls-files", "--others", "--", "*.rej").splitlines()
    if conflicts:
        print("\nConflicts, to be resolved before you commit:")
        print("\n".join(f"    {name}" for name in conflicts))
    return 1 if conflicts else 0


def link(answers: str, template: str | None) -> None:
    """Write cruft's state for a project that knows only where it was made from."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    address = template or record["template"]
    address = HOSTS.get(address[:3], address[:3]) + address[3:]  # cruft knows no short forms
    if not record["commit"]:
        sys.exit(f"error: {RECORD} names no commit of the template: use cruft link --checkout")
    origin = ("--checkout", record["commit"], "--extra-context", answers)
    run(*CRUFT, "link", "--no-input", *origin, address)


def remember(template: str, commit: str, answers: str) -> None:
    """Store in git what the template wrote at `commit`, so that git can merge three ways.

    Without it git has no common ancestor of a file that was edited before an earlier update, and
    cruft leaves rejected hunks (*.rej) for the whole patch.
    """
    with tempfile.TemporaryDirectory() as folder:
        origin = ("--checkout", commit, "--extra-context", answers, "--output-dir", folder)
        run(*CRUFT, "create", "--no-input", "--default-config", *origin, template, quiet=True)
        files = [path for path in Path(folder).glob("*/**/*") if path.is_file()]
        names = "\n".join(str(path) for path in files if ".git" not in path.parts)
        command = ("git", "hash-object", "-w", "--no-filters", "--stdin-paths")
        subprocess.run(command, input=names, text=True, check=True, stdout=subprocess.DEVNULL)


def run(*command: str, quiet: bool = False) -> None:
    output = subprocess.PIPE if quiet else None
    if subprocess.run(command, stdout=output).returncode:
        sys.exit(f"error: {' '.join(command[:3])} failed")


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
