"""What generation costs: CPU seconds of this template against a template of one file.

    python benchmarks/generation.py [ROUNDS]

Both are baked in turns in one run, each by a fresh `cookiecutter` command, and the CPU time of the
command with its hooks is what counts: it hardly depends on what else the machine is doing. It does
depend on the file system, which takes from 0.01 to 1 ms to create a file: that share is measured by
writing the same files once more, and told. Ends with code 1 when the median ratio without it is
above the limit; TMPDIR=/dev/shm measures in memory.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
LIMIT = 2.0  # docs/design.md says why it is not 1.3


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        templates = {"one file": one_file(folder / "template"), "this": TEMPLATE}
        for template in templates.values():
            bake(template, folder / "warm-up")
        (project,) = (folder / "warm-up").glob("ml-*")
        seconds: dict[str, list[float]] = {name: [] for name in [*templates, "writing"]}
        for number in range(rounds):
            for kind, template in templates.items():
                seconds[kind].append(bake(template, folder / f"{kind} {number}"))
            seconds["writing"].append(write(project, folder / f"writing {number}"))
    for kind, found in seconds.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{kind:<9} {middle:.3f} CPU s (median of {rounds}; {low:.3f} to {high:.3f})")
    rows = [*zip(*seconds.values(), strict=True)]
    ratio = statistics.median(this / one for one, this, _ in rows)
    net = statistics.median((this - writing) / one for one, this, writing in rows)
    print(f"ratio     {ratio:.2f}, without writing the files {net:.2f} (limit {LIMIT})")
    return 0 if net <= LIMIT else 1


def one_file(folder: Path) -> Path:
    """A template with one question and one file."""
    (folder / "{{cookiecutter.name}}").mkdir(parents=True)
    (folder / "cookiecutter.json").write_text(json.dumps({"name": "project"}))
    (folder / "{{cookiecutter.name}}" / "README.md").write_text("# {{ cookiecutter.name }}\n")
    return folder


def write(project: Path, folder: Path) -> float:
    """CPU seconds of writing a project's files and folders into a new one."""
    contents = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    before = time.process_time()
    for path, content in contents.items():
        target = folder / path.relative_to(project)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return time.process_time() - before


def bake(template: Path, folder: Path) -> float:
    """CPU seconds of one bake with all processes that it starts."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*command, "--default-config", "--output-dir", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
