"""Lay the chosen overlays over the project, make it a git repository, say what comes next.

An overlay is `_overlays/<question>/<value>/files/`: the final tree of what an answer adds. What
several answers share is an overlay of its own (`_classification`), named by a line of their file
`also`. What an answer adds only beside another answer lies in a folder of that question inside it
(`task/forecasting/mlops/full/files/`). Which overlays there are is read from the folders, so a new
one needs no change here.

An organisation's own overlays (`organisation_overlays`) have the same form, and a folder
`organisation/` that lies over every project. They are laid last. Where one replaces a file of the
template, its file `replaces` names that file: nothing of the template gets lost unnoticed.

Cookiecutter copies `_overlays` as it is; rendering every choice only to drop most of them would
cost more than all the rest. So the answers that overlays may hold are filled in here.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
HOST = "gitlab.com" if ANSWERS["ci"] == "gitlab" else "github.com"
REPOSITORY = f"https://{HOST}/{ANSWERS['github_username']}/{ANSWERS['project_slug']}"
FILLED = {**ANSWERS, "docs_url": f"{REPOSITORY}/blob/main/docs"}  # GitLab redirects there as well
OVERLAYS = Path("_overlays")
CHOICES = {path.name: [value.name for value in path.iterdir()] for path in OVERLAYS.iterdir()}
ORGANISATION = Path(f".organisation-{uuid.uuid4().hex}")
BEFORE = Path(".before-cookiecutter")
BLANK = re.compile(
    r"\{\{ ?cookiecutter\.(package_name|project_slug|github_username|docs_url) ?\}\}"
)


def fill(text):
    """A text with the names in the places that are kept for them."""
    return BLANK.sub(lambda blank: FILLED[blank[1]], text)


def lay(overlay):
    """Move an overlay's files into place, then those of the overlays that it shares or holds."""
    replaces = overlay / "replaces"
    replaced = replaces.read_text(encoding="utf-8").splitlines() if replaces.exists() else []
    for source in sorted((overlay / "files").rglob("*")):
        name = source.relative_to(overlay / "files").as_posix()
        target = Path(fill(name))
        if source.is_dir():
            target.mkdir(exist_ok=True)
            continue
        if KEEP and target.exists():
            continue
        if ORGANISATION in overlay.parents:
            if NEW and target.exists() and name not in replaced:
                refuse(f"{name} replaces a file of the template: name it in a file `replaces`")
            laid.append(str(target))
        source.replace(target)  # that none of the template takes another's place is tested
        content = target.read_bytes()
        if b"cookiecutter." in content:
            target.write_bytes(fill(content.decode()).encode())
    if (overlay / "also").exists():
        for name in (overlay / "also").read_text().split():
            lay(overlay.with_name(name))
    for question in sorted(path for path in overlay.iterdir() if path.name in ANSWERS):
        if (nested := question / ANSWERS[question.name]).is_dir():
            lay(nested)


def fetch(address):
    """Copy an organisation's overlays to here, judge them, return the commit that they are of."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        source = Path(address).expanduser()
        if not source.is_dir():
            way, _, name = address.rpartition("/")
            name, _, version = name.partition("@")
            source = Path(work, "clone")
            if subprocess.run(
                ["git", "clone", "--quiet", "--", f"{way}/{name}", source]
            ).returncode:
                refuse("cannot be fetched, see above")
            if version and git("checkout", "--quiet", version, "--", folder=source) is None:
                refuse(f"has no version {version}")
        commit = git("rev-parse", "HEAD", folder=source) if (source / ".git").exists() else None
        ignore = shutil.ignore_patterns(".git")
        shutil.copytree(source, ORGANISATION, symlinks=True, ignore=ignore)
    for path in sorted(ORGANISATION.iterdir()):
        if path.name[0] == "." or path.is_file():  # such as a README
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif path.name not in {*ANSWERS, "organisation"}:
            refuse(f"{path.name} is no question and not `organisation`")
        for value in path.glob("[!_]*"):
            if value.name not in CHOICES.get(path.name, [value.name]):
                refuse(f"{path.name}/{value.name} is no answer")
    for path in sorted(ORGANISATION.rglob("*")):
        name = path.relative_to(ORGANISATION).as_posix()
        if path.is_symlink():
            refuse(f"{name} is a link")
        text = path.read_bytes().decode(errors="ignore") if path.is_file() else ""
        if strange := re.search(r"\{\{ ?cookiecutter[^}]*\}*", BLANK.sub("", f"{name} {text}")):
            refuse(f"{name} holds {strange[0]}, which is not filled in")
    return commit


def refuse(reason):
    shutil.rmtree(ORGANISATION, ignore_errors=True)
    sys.exit(f"error: organisation_overlays={ANSWERS['organisation_overlays']!a}: {reason}")


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


KEEP, NEW = keeps_files(), not Path(".template.json").exists()
laid, overlays_commit = [], None
for question in sorted(OVERLAYS.iterdir()):
    lay(question / ANSWERS[question.name])
shutil.rmtree(OVERLAYS)
if ANSWERS["organisation_overlays"]:
    overlays_commit = fetch(ANSWERS["organisation_overlays"])
    for question in sorted(ORGANISATION.iterdir()):
        if (overlay := question / ANSWERS.get(question.name, "")).is_dir():
            lay(overlay)
    shutil.rmtree(ORGANISATION)

# Where the project comes from. Cruft does not say where its copy is, but notes the commit itself.
record = Path(".template.json")
if not (KEEP and record.exists()):
    source = ANSWERS.get("_repo_dir")
    content = {
        "template": ANSWERS.get("_template"),
        "commit": source and git("rev-parse", "HEAD", folder=source),
        "answers": {name: answer for name, answer in ANSWERS.items() if name[0] != "_"},
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
    print("\nFrom your organisation: " + ", ".join(laid))
if around is not None and Path(around).resolve() != Path.cwd().resolve():
    print(f"""
It belongs to the repository {around}, so it has none of its own. CI files work at the
root of a repository only: move them there, with this folder as `working-directory`.
Update with: cruft update --project-dir {Path.cwd()}""")
