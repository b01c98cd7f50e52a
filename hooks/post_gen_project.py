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
import os
import re
import shutil
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
OVERLAYS = Path("_overlays")
BLANK = re.compile(r"\{\{ ?cookiecutter\.(package_name|project_slug|github_username) ?\}\}")


def fill(text):
    """A text with the names in the places that are kept for them."""
    return BLANK.sub(lambda blank: ANSWERS[blank[1]], text)


def lay(overlay):
    """Move an overlay's files into place, then those of the overlays that it shares or holds."""
    for source in sorted((overlay / "files").rglob("*")):
        target = Path(fill(str(source.relative_to(overlay / "files"))))
        if source.is_dir():
            target.mkdir(exist_ok=True)
            continue
        source.replace(target)  # that it takes no other file's place is tested
        content = target.read_bytes()
        if b"cookiecutter." in content:
            target.write_bytes(fill(content.decode()).encode())
    if (overlay / "also").exists():
        for name in (overlay / "also").read_text().split():
            lay(overlay.with_name(name))
    for question in sorted(path for path in overlay.iterdir() if path.name in ANSWERS):
        if (nested := question / ANSWERS[question.name]).is_dir():
            lay(nested)


for question in sorted(OVERLAYS.iterdir()):
    lay(question / ANSWERS[question.name])
shutil.rmtree(OVERLAYS)

# A repository of its own even inside another one: runs record the commit they were made from, and
# that must be the project's. No commit is made: the first one is the user's. Git may be missing.
if not Path(".git").exists():
    os.system(f"git init --quiet --initial-branch=main 2>{os.devnull}")

print(f"""
{ANSWERS["project_slug"]} is ready. Next:
    cd {ANSWERS["project_slug"]}
    make demo        install, train, write the results into the README, deploy
    make serve       answer requests at http://127.0.0.1:8000/docs""")
