"""Lay the chosen overlays over the project, make it a git repository, say what comes next.

An overlay is `_overlays/<question>/<value>/files/`: the final tree of what an answer adds. Which
overlays there are is read from the folders, so a new one needs no change here.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
OVERLAYS = Path("_overlays")


for question in sorted(path.name for path in OVERLAYS.iterdir()):
    files = OVERLAYS / question / ANSWERS[question] / "files"
    if files.is_dir():
        # Moved, not copied. That no overlay takes the place of a core file is tested.
        shutil.copytree(files, ".", dirs_exist_ok=True, copy_function=os.replace)
shutil.rmtree(OVERLAYS)

# A repository of its own even inside another one: runs record the commit they were made from, and
# that must be the project's. No commit is made: the first one is the user's.
if shutil.which("git") and not Path(".git").exists():
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], check=False)

print(f"""
{ANSWERS["project_slug"]} is ready. Next:
    cd {ANSWERS["project_slug"]}
    make demo        install, train, write the results into the README, deploy
    make serve       answer requests at http://127.0.0.1:8000/docs""")
