"""What the generated project's training loop costs, beside others, in one interleaved run.

    python benchmarks/training [--quick] [--rounds N] [--device cuda]

Makes a project and an environment with all contestants (kept in build/bench), then trains the same
network with each of them by turns, and writes the figures of docs/benchmarks-training.md, but for a
quick run.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import demo  # noqa: E402  it is not installed

BUILD = ROOT / "build" / "bench" / "training"
NAMES = ("ours", "bare", "accelerate", "lightning", "transformers")
TITLES = {
    "ours": "ours",
    "bare": "bare loop",
    "accelerate": "Accelerate",
    "lightning": "Lightning",
    "transformers": "HF Trainer",
}
EXTRA = ("accelerate~=1.15", "lightning~=2.6", "transformers~=5.23")  # beside the project's own
MODES = ("memory", "stream")
BEGIN, END = "<!-- training: begin -->", "<!-- training: end -->"

Rows = list[dict[str, float | str | int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round: a try")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    rounds, rows, epochs = (1, 1000, 2) if options.quick else (options.rounds, 8600, 4)
    project, python = prepare()
    measured: Rows = []
    for number in range(rounds):
        turn = number % len(NAMES)
        for mode in MODES:
            for name in (*NAMES[turn:], *NAMES[:turn]):
                print(f"round {number + 1} of {rounds}, {mode}: {TITLES[name]}", flush=True)
                found = run(project, python, name, mode, str(rows), str(epochs), options.device)
                measured.append({"round": number, "mode": mode, "name": name, **found})
    lines = [about(python, rounds, rows, epochs, options.device), "", *table(measured)]
    print("\n".join(lines))
    if not options.quick:
        page = ROOT / "docs" / "benchmarks-training.md"
        text = page.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        middle = "\n".join([BEGIN, *lines, END])
        page.write_text(before + middle + after, encoding="utf-8")
    return 0


def prepare() -> tuple[Path, Path]:
    """Bake the project and install the contestants, unless they are there; return both paths."""
    project = demo.bake(BUILD, "image-classification", "basic")
    subprocess.run([sys.executable, "scripts/setup.py", "--no-dev"], cwd=project, check=True)
    python = project / ".venv" / "bin" / "python"
    pins = ["--constraint", str(project / "constraints.txt")]
    install = [str(python), "-m", "pip", "install", "--quiet", *EXTRA, *pins]
    if subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode:
        subprocess.run([str(python), "-m", "ensurepip"], check=True)  # uv made the environment
    subprocess.run(install, check=True)
    return project, python


def run(project: Path, python: Path, *arguments: str) -> dict[str, float]:
    """Return what one contestant says of its training, in a process of its own."""
    script = Path(__file__).with_name("contestant.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [str(python), str(script), *arguments],
        cwd=project,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def table(measured: Rows) -> list[str]:
    """Tabulate each contestant's cost relative to the bare loop's, medians over the rounds."""
    head = ["", *(TITLES[name] for name in NAMES)]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(NAMES)]
    for mode, key, title in (
        ("memory", "step", "CPU of a step ÷ bare, rows in memory"),
        ("stream", "step", "CPU of a step ÷ bare, rows made when needed"),
        ("memory", "mean", "the same with validation and checkpoints between epochs, in memory"),
        ("memory", "start", "CPU from start to first step ÷ bare"),
    ):
        cells = [f"{ratio(measured, mode, key, name):.2f}" for name in NAMES]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    for key, title, scale in (
        ("step", "ms of CPU per step", 1000),
        ("start", "s of CPU to the first step", 1),
    ):
        values = [
            statistics.median(
                scale * float(row[key])
                for row in measured
                if row["name"] == name and row["mode"] == "memory"
            )
            for name in NAMES
        ]
        lines.append(f"| {title} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return lines


def ratio(measured: Rows, mode: str, key: str, name: str) -> float:
    """Return the median over the rounds of a contestant's figure ÷ the bare loop's."""
    by_round: dict[int, dict[str, float]] = {}
    for row in measured:
        if row["mode"] == mode:
            by_round.setdefault(int(row["round"]), {})[str(row["name"])] = float(row[key])
    return statistics.median(each[name] / each["bare"] for each in by_round.values())


def about(python: Path, rounds: int, rows: int, epochs: int, device: str) -> str:
    """Say what was measured, where and with which versions."""
    code = "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in "
    code += "('torch', 'accelerate', 'lightning', 'transformers')), sep=', ')"
    versions = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return (
        f"{rounds} rounds of {epochs} epochs over {rows:,} rows, batches of 64, {device}, one "
        f"thread, {platform.machine()}, Python {platform.python_version()}, "
        f"{versions.stdout.strip()}, {time.strftime('%Y-%m-%d')}."
    )


if __name__ == "__main__":
    sys.exit(main())
