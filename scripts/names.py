"""Write the names that no project may have into hooks/pre_gen_project.py and cookiecutter.json.

    python scripts/names.py PYTHON

PYTHON is the interpreter of an environment with everything that projects install; `make lock`
calls this, and the tests compare the lists with such an environment.
"""

import json
import keyword
import re
import subprocess
import sys
import textwrap
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
HOOK = TEMPLATE / "hooks" / "pre_gen_project.py"
ANSWERS = TEMPLATE / "cookiecutter.json"
LONGEST = 30
# Of Windows, whatever their ending; of the interpreter's folder; folders of a project or of tools.
WINDOWS = {
    "aux",
    "con",
    "nul",
    "prn",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}
PROGRAMS = {
    "activate",
    "deactivate",
    "idle",
    "pip",
    "pip3",
    "pydoc",
    "python",
    "python3",
    "python_config",
}
FOLDERS = {
    "build",
    "dist",
    "docs",
    "env",
    "runs",
    "scripts",
    "site",
    "src",
    "tasks",
    "test",
    "tests",
}
TOOLS = {"cookiecutter", "cruft", "make", "torchvision", "uv", "venv", "virtualenv"}
KUBERNETES = {"default", "kube_node_lease", "kube_public", "kube_system"}  # its own namespaces
# Modules of Python 3.12 to 3.14, for whoever bakes with an older one.
NEWER = {"annotationlib", "compression", "pyrepl"}
CODE = """
import importlib.metadata as metadata, json
modules = metadata.packages_distributions()
scripts = [p.name for p in metadata.entry_points(group="console_scripts")]
print(json.dumps([*modules, *scripts, *(d.name for d in metadata.distributions())]))
"""


def installed(python: Path) -> set[str]:
    """Names of distributions, modules and programs of an environment, as a package would be named;
    only those that a project could be named."""
    done = subprocess.run([python, "-c", CODE], capture_output=True, check=True)
    names = {re.sub(r"[-_.]+", "_", name).lower() for name in json.loads(done.stdout)}
    return {name for name in names if possible(name)}


def possible(name: str) -> bool:
    """Whether it would be a package's name otherwise."""
    return len(name) <= LONGEST and bool(re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name))


def write(python: Path) -> int:
    """Write the names that an environment takes; return the exit code."""
    words = {*sys.stdlib_module_names, *NEWER, *keyword.kwlist, *keyword.softkwlist}
    words |= KUBERNETES | WINDOWS | PROGRAMS | FOLDERS | TOOLS | installed(python)
    names = sorted(filter(possible, words))
    listed = textwrap.indent(textwrap.fill(" ".join(names), 92), " " * 8)
    text = HOOK.read_text(encoding="utf-8")
    text = re.sub(r'(?s)(TAKEN = set\(\n    """\n).*?( *"""\.split)', rf"\g<1>{listed}\n\2", text)
    HOOK.write_text(text, encoding="utf-8")
    text = ANSWERS.read_text(encoding="utf-8")
    text = re.sub(r"taken = ' [a-z0-9_ ]* '", f"taken = ' {' '.join(names)} '", text)
    ANSWERS.write_text(text, encoding="utf-8")
    print(f"written: {len(names)} names that no project may have")
    return 0


if __name__ == "__main__":
    sys.exit(write(Path(sys.argv[1])))
