"""Kill training with SIGKILL at random moments, resume it until done, and compare every bit.

    python benchmarks/kills.py [--task TASK] [--processes 2] [--kills 20] [section.key=value …]

Makes a project (kept in build/kills) and trains undisturbed. Then kills all processes at a random
moment, resumes, kills again, and so on; compares each run that gets to its end. Linux only.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import demo  # noqa: E402  it is not installed

EPOCHS = 30  # of two seeds: half of a train's seconds, the rest is its start
SETTINGS = ["train.seeds=0,1", f"train.epochs={EPOCHS}", "train.choose_epoch=metric"]
SETTINGS += ["train.precision=bfloat16", "train.ema=0.99", "train.accumulate=2"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", default="image-classification", choices=list(demo.NAMES))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=30, help="no more kills after this time")
    parser.add_argument("settings", nargs="*", help="more settings of the training")
    options = parser.parse_args()
    project = demo.bake(ROOT / "build" / "kills", options.task, "basic")
    subprocess.run([sys.executable, "scripts/setup.py", "--no-dev"], cwd=project, check=True)
    shutil.rmtree(project / "runs", ignore_errors=True)
    (package,) = (path.parent.name for path in project.glob("src/*/cli.py"))
    torchrun = [*TORCHRUN, str(options.processes)] if options.processes > 1 else []
    command = [str(project / ".venv/bin/python"), *torchrun, "-m", f"{package}.cli", "train"]
    started = time.monotonic()
    settings = [*SETTINGS, *options.settings]
    train(project, [*command, *settings])
    seconds = time.monotonic() - started
    (whole,) = done = runs(project)
    draw, latest = random.Random(options.processes), started + options.minutes * 60
    run, kills, equal = None, Counter[str](), []
    while True:
        more = kills.total() < options.kills and time.monotonic() < latest
        if not more and run is None:
            break
        arguments = ["--resume", str(run)] if run else settings
        killed = train(project, [*command, *arguments], draw.uniform(0, seconds) if more else None)
        run = next(iter(runs(project) - done), None)
        if killed:
            kills[phase(run)] += 1
            print(f"kill {kills.total()}: {phase(run)}", flush=True)
        else:
            equal.append(results(run) == results(whole))
            print(f"run {len(equal)} is done; equal: {equal[-1]}", flush=True)
            done, run = done | {run}, None
    print(f"processes: {options.processes}; {seconds:.0f} s undisturbed; kills: {dict(kills)}")
    print(f"{sum(equal)} of {len(equal)} runs equal the undisturbed one")
    return 0 if equal and all(equal) else 1


def train(project: Path, command: list[str], seconds: float | None = None) -> bool:
    """Train; return whether it was killed after `seconds`. Exit if it fails by itself."""
    process = subprocess.Popen(
        command, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGSTOP)  # torchrun starts no more workers
        for pid in family(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()  # until all have closed their output
        return True
    if process.returncode:
        sys.exit(f"error: {' '.join(command)} returned {process.returncode}:\n{output}")
    return False


def family(pid: int) -> list[int]:
    """A process, its children and theirs: torchrun's workers are in sessions of their own."""
    children = "".join(p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return [pid, *(found for child in children for found in family(int(child)))]


def runs(project: Path) -> set[Path]:
    return {path.parent for path in project.glob("runs/*/run.json")}


def phase(run: Path | None) -> str:
    if run is None:
        return "before the run was there"
    epochs = [json.loads(path.read_text())["epoch"] for path in run.glob("seed-*/history.json")]
    if not epochs:
        return "before the first checkpoint"
    return "in training" if sum(epochs) < 2 * EPOCHS else "after the last checkpoint"


def results(run: Path) -> dict[str, object]:
    """Tracked metrics, histories without their seconds, and tensors: descriptions and bytes."""
    found: dict[str, object] = {"tracked": tracked(run)}
    for path in run.glob("seed-*/history.json"):
        found[path.parent.name] = {**json.loads(path.read_text()), "seconds": None}
    for path in run.glob("seed-*/best.safetensors"):
        raw = path.read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")
        tensors = {**json.loads(raw[8:end]), "__metadata__": None}
        found[str(path.relative_to(run))] = (tensors, raw[end:])
    return found


def tracked(run: Path) -> list[tuple[object, ...]]:
    """What MLflow's database says of the networks of a run."""
    query = "SELECT substr(name, ?), status, key, step, value FROM runs LEFT JOIN metrics"
    query += " USING (run_uuid) WHERE name LIKE ? ORDER BY name, key, step, value"
    with closing(sqlite3.connect(run.parents[1] / "mlflow.db")) as database:
        return list(database.execute(query, (len(run.name) + 1, f"{run.name}-seed-%")))


if __name__ == "__main__":
    sys.exit(main())
