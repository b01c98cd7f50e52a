"""What generation costs: CPU seconds of this template against a template of one file.

    python benchmarks/generation.py [ROUNDS]

Both are baked in turns in one run, each by a fresh `cookiecutter` command, and the CPU time of the
command with its hooks is what counts: it hardly depends on what else the machine is doing. Ends
with code 1 when the median ratio is above the limit.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
LIMIT = 1.3


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        templates = {"one file": one_file(folder / "template"), "this": TEMPLATE}
        for template in templates.values():
            bake(template, folder / "warm-up")
        seconds: dict[str, list[float]] = {name: [] for name in templates}
        for number in range(rounds):
            for kind, template in templates.items():
                seconds[kind].append(bake(template, folder / f"{kind} {number}"))
    for kind, found in seconds.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{kind:<9} {middle:.3f} CPU s (median of {rounds}; {low:.3f} to {high:.3f})")
    pairs = zip(seconds["this"], seconds["one file"], strict=True)
    ratio = statistics.median(this / other for this, other in pairs)
    print(f"ratio     {ratio:.2f} (median of the rounds; limit {LIMIT})")
    return 0 if ratio <= LIMIT else 1


def one_file(folder: Path) -> Path:
    """A template with one question and one file."""
    (folder / "{{cookiecutter.name}}").mkdir(parents=True)
    (folder / "cookiecutter.json").write_text(json.dumps({"name": "project"}))
    (folder / "{{cookiecutter.name}}" / "README.md").write_text("# {{ cookiecutter.name }}\n")
    return folder


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
