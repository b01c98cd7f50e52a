"""Lay the chosen overlays over the project, make it a git repository, say what comes next.

An overlay is `templates/_overlays/<question>/<value>/files/`: the final tree of what an answer
adds. What several answers share is an overlay of its own (`_classification`), named by a line of
their file `also`. What an answer adds only beside another answer lies in a folder of that question
inside it (`task/forecasting/mlops/full/files/`). Which overlays there are is read from the folders,
so a new one needs no change here.

Overlays are no part of the folder that cookiecutter renders: it would copy all of them, and most
are not chosen. They and the tests may hold a few answers, which are filled in here.
"""

import json
import re
import subprocess
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# Cookiecutter stands in the template's folder while it fills this in. That is the only way to find
# it under cruft, which passes no `_repo_dir`.
(FOLDER,) = json.loads(r"""[{{ lipsum.__globals__.os.getcwd() | tojson }}]""")
HOST = "gitlab.com" if ANSWERS["ci"] == "gitlab" else "github.com"
REPOSITORY = f"https://{HOST}/{ANSWERS['github_username']}/{ANSWERS['project_slug']}"
FILLED = {**ANSWERS, "docs_url": f"{REPOSITORY}/blob/main/docs"}  # GitLab redirects there as well
BEFORE = Path(".before-cookiecutter")
BLANK = re.compile(
    r"\{\{ ?cookiecutter\.(package_name|project_slug|github_username|docs_url) ?\}\}"
)


def fill(text):
    """A text with the names in the places that are kept for them."""
    return BLANK.sub(lambda blank: FILLED[blank[1]], text)


def lay(overlay):
    """Copy an overlay's files into place, then those of the overlays that it shares or holds."""
    for source in (overlay / "files").rglob("*"):
        target = Path(fill(str(source.relative_to(overlay / "files"))))
        if source.is_dir() or "__pycache__" in source.parts or (KEEP and target.exists()):
            continue
        content = source.read_bytes()
        if b"cookiecutter." in content:
            content = fill(content.decode()).encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)  # that it takes no other overlay's file's place is tested
        target.chmod(source.stat().st_mode)
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
    import shutil  # hardly ever needed

    keep = all(
        (BEFORE / name).stat().st_mtime_ns == Path(name).stat().st_mtime_ns
        for name in ("pyproject.toml", "Makefile", "README.md")
        if (BEFORE / name).exists()
    )
    for path in filter(Path.is_file, BEFORE.rglob("*") if keep else ()):
        path.replace(path.relative_to(BEFORE))
    shutil.rmtree(BEFORE)
    return keep


def git(*arguments, folder="."):
    """What git prints; None if it fails or is not installed."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


for test in Path("tests").glob("*.py"):
    if b"cookiecutter." in (content := test.read_bytes()):
        test.write_bytes(fill(content.decode()).encode())
KEEP = keeps_files()
for question in sorted(Path(FOLDER, "templates", "_overlays").iterdir()):
    lay(question / ANSWERS[question.name])

# Where the project comes from. Cruft does not say where its copy is, but notes the commit itself.
record = Path(".template.json")
if not (KEEP and record.exists()):
    source = ANSWERS.get("_repo_dir")
    content = {
        "template": ANSWERS.get("_template"),
        "commit": source and git("rev-parse", "HEAD", folder=source),
        "answers": {name: answer for name, answer in ANSWERS.items() if name[0] != "_"},
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
