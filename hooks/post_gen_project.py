"""Lay the chosen overlays over the project, make it a git repository, say what comes next.

An overlay is `templates/_overlays/<question>/<value>/files/`: the final tree of what an answer
adds. What several answers share is an overlay of its own (`_classification`), named by a line of
their file `also`. What an answer adds only beside another answer lies in a folder of that question
inside it (`task/forecasting/mlops/full/files/`). Which overlays there are is read from the folders,
so a new one needs no change here.

An organisation's own overlays (`organisation_overlays`) have the same form, and a folder
`organisation/` that lies over every project. They are laid last. Where one replaces a file of the
template, its file `replaces` names that file: nothing of the template gets lost unnoticed.

Overlays are no part of the folder that cookiecutter renders: it would copy all of them, and most
are not chosen. They and the tests may hold a few answers, which are filled in here.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

VERSION = "0.8.0"  # of the template; written by scripts/release.py
ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# Cookiecutter stands in the template's folder while it fills this in; when this runs, it is gone.
# Cruft passes no `_repo_dir`, hooks can include no file, and an extension of our own would be
# imported once in a process that may use two clones. A Jinja function whose module imports `os` is
# left.
(FOLDER,) = json.loads(r"""[{{ lipsum.__globals__.os.getcwd() | tojson }}]""")
HOST = "gitlab.com" if ANSWERS["ci"] == "gitlab" else "github.com"
REPOSITORY = f"https://{HOST}/{ANSWERS['github_username']}/{ANSWERS['project_slug']}"
FILLED = {**ANSWERS, "docs_url": f"{REPOSITORY}/blob/main/docs"}  # GitLab redirects there as well
OVERLAYS = Path(FOLDER, "templates", "_overlays")
CHOICES = {path.name: [value.name for value in path.iterdir()] for path in OVERLAYS.iterdir()}
BEFORE = Path(".before-cookiecutter")
BLANK = re.compile(
    r"\{\{ ?cookiecutter\.(package_name|project_slug|github_username|docs_url) ?\}\}"
)


def fill(text):
    """A text with the names in the places that are kept for them."""
    return BLANK.sub(lambda blank: FILLED[blank[1]], text)


def lay(overlay, organisation=False):
    """Copy an overlay's files into place, then those of the overlays that it shares or holds."""
    replaces = overlay / "replaces"
    replaced = replaces.read_text(encoding="utf-8").splitlines() if replaces.exists() else []
    for source in (overlay / "files").rglob("*"):
        name = source.relative_to(overlay / "files").as_posix()
        target = Path(fill(name))
        if source.is_dir() or "__pycache__" in source.parts or (KEEP and target.exists()):
            continue
        if organisation:
            if NEW and target.exists() and name not in replaced:
                refuse(f"{name} replaces a file of the template: name it in a file `replaces`")
            laid.append(str(target))
        content = source.read_bytes()
        if b"cookiecutter." in content:
            content = fill(content.decode()).encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)  # that none of the template takes another's place is tested
        target.chmod(source.stat().st_mode)
    if (overlay / "also").exists():
        for name in (overlay / "also").read_text().split():
            lay(overlay.with_name(name), organisation)
    for question in sorted(path for path in overlay.iterdir() if path.name in ANSWERS):
        if (nested := question / ANSWERS[question.name]).is_dir():
            lay(nested, organisation)


def lay_organisation(address):
    """Lay an organisation's overlays; return the commit that they are of. Refuse what is none."""
    import shutil
    import tempfile

    work = tempfile.mkdtemp()
    try:
        folder = Path(address).expanduser()
        if not folder.is_dir():
            way, _, name = address.rpartition("/")
            name, _, version = name.partition("@")
            folder = Path(work, "clone")
            clone = ["git", "clone", "--quiet", "--", f"{way}/{name}", folder]
            if subprocess.run(clone).returncode:
                refuse("cannot be fetched, see above")
            if version and git("checkout", "--quiet", version, "--", folder=folder) is None:
                refuse(f"has no version {version}")
        # What lies beside the overlays is not theirs, such as a README and .git.
        questions = [path for path in sorted(folder.glob("[!.]*")) if path.is_dir()]
        for question in questions:
            if question.name not in {*ANSWERS, "organisation"}:
                refuse(f"{question.name} is no question and not `organisation`")
            for value in question.glob("[!_]*"):
                if value.name not in CHOICES.get(question.name, [value.name]):
                    refuse(f"{question.name}/{value.name} is no answer")
            for path in sorted(question.rglob("*")):
                name = path.relative_to(folder).as_posix()
                if path.is_symlink() or path.name == ".git":
                    refuse(f"{name} is a link or of git itself")
                text = path.read_bytes().decode(errors="ignore") if path.is_file() else ""
                rest = BLANK.sub("", f"{name} {text}")
                if strange := re.search(r"\{\{ ?cookiecutter[^}]*\}*", rest):
                    refuse(f"{name} holds {strange[0]}, which is not filled in")
        for question in questions:
            if (overlay := question / ANSWERS.get(question.name, "")).is_dir():
                lay(overlay, organisation=True)
        return git("rev-parse", "HEAD", folder=folder) if (folder / ".git").exists() else None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def refuse(reason):
    sys.exit(f"error: organisation_overlays={ANSWERS['organisation_overlays']!a}: {reason}")


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
KEEP, NEW = keeps_files(), not Path(".template.json").exists()
for question in sorted(OVERLAYS.iterdir()):
    lay(question / ANSWERS[question.name])
laid = []
address = ANSWERS["organisation_overlays"]
overlays_commit = lay_organisation(address) if address else None

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
    if overlays_commit:
        content["overlays_commit"] = overlays_commit
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
if laid:
    print("\nFrom your organisation: " + ", ".join(sorted(laid)))
if around is not None and Path(around).resolve() != Path.cwd().resolve():
    print(f"""
It belongs to the repository {around}, so it has none of its own. CI files work at the
root of a repository only: move them there, with this folder as `working-directory`.
Update with: make update""")
