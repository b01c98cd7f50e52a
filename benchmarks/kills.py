"""Kill a training run with SIGKILL at random moments, resume it until done, compare every bit.

    python benchmarks/kills.py [--task TASK] [--processes 2] [--kills 20] [--minutes 30]

Makes a project and its environment (kept in build/kills), trains it undisturbed, then kills whole
families of processes after a random time: at start-up, in a step, while a checkpoint is written,
during evaluation, and in runs that are already resumed. A run that reaches its end in between is
compared with the undisturbed one; the next kill hits a new one. Linux only.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import demo  # noqa: E402  it is not installed

SETTINGS = ["train.seeds=0,1", "train.epochs=12", "train.choose_epoch=metric"]
SETTINGS += ["train.precision=bfloat16", "train.ema=0.99", "train.accumulate=2"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", default="image-classification", choices=list(demo.NAMES))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=30, help="no kill after this time")
    options = parser.parse_args()
    project = demo.bake(ROOT / "build" / "kills", options.task, "basic")
    runs = project / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    torchrun = [*TORCHRUN, str(options.processes)] if options.processes > 1 else []
    command = [str(interpreter(project)), *torchrun, "-m", f"{package(project)}.cli", "train"]
    started = time.monotonic()
    train(project, [*command, *SETTINGS])
    seconds = time.monotonic() - started
    expected = results(newest(runs))
    draw = random.Random(options.processes)
    kills, early, equal = 0, 0, []
    latest = started + options.minutes * 60
    run = None  # the one that was killed and is to be resumed
    while (kills < options.kills and time.monotonic() < latest) or run:
        again = ["--resume", str(run)] if run else SETTINGS
        last = kills >= options.kills or time.monotonic() >= latest
        moment = None if last else draw.uniform(0, seconds)
        before = newest(runs)
        if train(project, [*command, *again], moment):
            kills += 1
            made = newest(runs)
            run = run or (made if made != before else None)
            early += run is None
            print(f"kill {kills} after {moment:.1f} s, {progress(run)}", flush=True)
        else:
            equal.append(results(newest(runs)) == expected)
            print(f"run {len(equal)} is done, equal: {equal[-1]}", flush=True)
            run = None
    print(
        f"{options.processes} process(es), {seconds:.0f} s undisturbed: {kills} kills, {early} of "
        f"them before the run's folder was there; {sum(equal)} of {len(equal)} runs equal"
    )
    return 0 if equal and all(equal) else 1


def interpreter(project: Path) -> Path:
    """Install the project and return its Python."""
    subprocess.run([sys.executable, "scripts/setup.py", "--no-dev"], cwd=project, check=True)
    return project / ".venv" / "bin" / "python"


def package(project: Path) -> str:
    (folder,) = (path.parent for path in project.glob("src/*/cli.py"))
    return folder.name


def train(project: Path, command: list[str], seconds: float | None = None) -> bool:
    """Train; return whether it was killed after `seconds`. Exit if it fails by itself."""
    process = subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGSTOP)  # torchrun starts nobody any more
        for pid in family(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()  # until all have closed their output
        return True
    if process.returncode:
        sys.exit(f"error: {' '.join(command)} returned {process.returncode}:\n{output}")
    return False


def family(pid: int) -> list[int]:
    """A process, its children and theirs: torchrun's workers are in sessions of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in family(int(child)))]


def newest(runs: Path) -> Path | None:
    return max((path.parent for path in runs.glob("*/run.json")), default=None)


def progress(run: Path | None) -> str:
    done = [history(path)["epoch"] for path in run.glob("seed-*/history.json")] if run else []
    return f"epochs recorded {done}" if run else "before the run's folder was there"


def history(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key != "seconds"}


def results(run: Path | None) -> dict[str, object]:
    """Histories without their seconds, and the tensors of the files: header and bytes."""
    assert run is not None
    found: dict[str, object] = {
        path.parent.name: history(path) for path in run.glob("seed-*/history.json")
    }
    for path in run.glob("seed-*/best.safetensors"):
        raw = path.read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:end])
        header.pop("__metadata__", None)
        found[str(path.relative_to(run))] = (header, raw[end:])
    return found


if __name__ == "__main__":
    sys.exit(main())
