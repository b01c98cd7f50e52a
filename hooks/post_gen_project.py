"""Lay the chosen overlays over the project, make it a git repository, say what comes next.

An overlay is `_overlays/<question>/<value>/files/`: the final tree of what an answer adds. What
several answers share is an overlay of its own (`_classification`), named by a line of their file
`also`. What an answer adds only beside another answer lies in a folder of that question inside it
(`task/forecasting/mlops/full/files/`). Which overlays there are is read from the folders, so a new
one needs no change here.

Cookiecutter copies `_overlays` as it is; rendering every choice only to drop most of them would
cost more than all the rest. So the answers that overlays may hold are filled in here.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

VERSION = "0.8.0"  # of the template; written by scripts/release.py
ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
HOST = "gitlab.com" if ANSWERS["ci"] == "gitlab" else "github.com"
REPOSITORY = f"https://{HOST}/{ANSWERS['github_username']}/{ANSWERS['project_slug']}"
FILLED = {**ANSWERS, "docs_url": f"{REPOSITORY}/blob/main/docs"}  # GitLab redirects there as well
OVERLAYS = Path("_overlays")
BEFORE = Path(".before-cookiecutter")
BLANK = re.compile(
    r"\{\{ ?cookiecutter\.(package_name|project_slug|github_username|docs_url) ?\}\}"
)


def fill(text):
    """A text with the names in the places that are kept for them."""
    return BLANK.sub(lambda blank: FILLED[blank[1]], text)


def lay(overlay):
    """Move an overlay's files into place, then those of the overlays that it shares or holds."""
    for source in sorted((overlay / "files").rglob("*")):
        target = Path(fill(str(source.relative_to(overlay / "files"))))
        if source.is_dir():
            target.mkdir(exist_ok=True)
            continue
        if KEEP and target.exists():
            continue
        source.replace(target)  # that it takes no other overlay's file's place is tested
        content = target.read_bytes()
        if b"cookiecutter." in content:
            target.write_bytes(fill(content.decode()).encode())
    if (overlay / "also").exists():
        for name in (overlay / "also").read_text().split():
            lay(overlay.with_name(name))
    for question in sorted(path for path in overlay.iterdir() if path.name in ANSWERS):
        if (nested := question / ANSWERS[question.name]).is_dir():
            lay(nested)


def keeps_files():
    """Whether what was there before stays (`-s`): cookiecutter has not written a core file anew.
    Puts back what it has replaced all the same."""
    if not BEFORE.exists():
        return False
    keep = all(
        (BEFORE / name).stat().st_mtime_ns == Path(name).stat().st_mtime_ns
        for name in ("pyproject.toml", "Makefile", "README.md")
        if (BEFORE / name).exists()
    )
    for copy in filter(Path.is_file, BEFORE.rglob("*") if keep else ()):
        copy.replace(copy.relative_to(BEFORE))
    shutil.rmtree(BEFORE)
    return keep


def git(*arguments, folder="."):
    """What git prints; None if it fails or is not installed."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


KEEP = keeps_files()
for question in sorted(OVERLAYS.iterdir()):
    lay(question / ANSWERS[question.name])
shutil.rmtree(OVERLAYS)

# Where the project comes from. Cruft gives the commit; otherwise it is that of cookiecutter's copy.
# `template` is last, as cruft may know it by another address: its patches do not come near it.
record = Path(".template.json")
if not (KEEP and record.exists()):
    commit, source = ANSWERS.get("_commit"), ANSWERS.get("_repo_dir")
    content = {
        "version": VERSION,
        "commit": commit or (source and git("rev-parse", "HEAD", folder=source)),
        "answers": {name: answer for name, answer in ANSWERS.items() if name[0] != "_"},
        "template": ANSWERS.get("_template"),
    }
    record.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

# A repository of its own, so that runs record the project's commits. No commit is made: the first
# one is the user's. Inside another repository git would take it for a submodule without an address.
around = git("rev-parse", "--show-toplevel")
if around is not None and git("check-ignore", "--quiet", ".") is not None:
    around = None  # it is none of that repository's business
if around is None and not Path(".git").exists():
    git("init", "--quiet", "--initial-branch=main")

print(f"""
{ANSWERS["project_slug"]} is ready. Next:
    cd {ANSWERS["project_slug"]}
    make demo        install, train, write the results into the README, deploy
    make serve       answer requests; a page to try the model at http://127.0.0.1:8000""")
if around is not None and Path(around).resolve() != Path.cwd().resolve():
    print(f"""
It belongs to the repository {around}, so it has none of its own. CI files work at the
root of a repository only: move them there, with this folder as `working-directory`.
Update with: cruft update --project-dir {Path.cwd()}""")
