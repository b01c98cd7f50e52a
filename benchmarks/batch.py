"""Compare `predict --input` with ONNX Runtime alone, and kill it in between.

    python benchmarks/batch.py [--project build/demo] [--rows 1000000] [--rounds 5]

Takes the image project that `make demo` made. Linux only.
"""

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TEXT_ROWS = 100_000  # of the CSV file and the JSON lines
KILLS = 3

# Run by the project's Python. ONNX Runtime on arrays that are there already, 1,024 rows a call.
BOUND = """
import json, sys, time
from pathlib import Path
import numpy as np
from PACKAGE.bundle.deployment import champion_path
from PACKAGE.bundle.load import load_bundle
bundle = load_bundle(*champion_path(Path("deployment")))
rows, size = int(sys.argv[1]), 1024
shape = [end if isinstance(end, int) else size for end in bundle.manifest.signature.inputs[0].shape]
batch = {"image": np.random.default_rng(0).random(shape, np.float32)}
bundle.run(batch)
started = time.process_time()
for _ in range(rows // size):
    bundle.run(batch)
print(json.dumps(rows // size * size / (time.process_time() - started)))
"""

# Grey levels as the digits have them, an id and a text; then the same as CSV and JSON lines.
TABLES = """
import csv, json, sys
import numpy as np, pyarrow as pa
from pyarrow import parquet
folder, rows, text_rows, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 2**16
draw, writer = np.random.default_rng(0), None
def nest(values, width):
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, width, dtype=np.int32), values)
for start in range(0, rows, step):
    count = min(step, rows - start)
    levels = pa.array(draw.integers(0, 17, count * 64).astype(np.float32) / 16)
    ids = [*range(start, start + count)]
    table = pa.table({"id": ids, "pixels": nest(nest(levels, 8), 8), "note": map(str, ids)})
    writer = writer or parquet.ParquetWriter(folder + "/in.parquet", table.schema)
    writer.write_table(table)
    if not start:
        few = table.slice(0, text_rows).to_pylist()
writer.close()
few = [few[n % len(few)] for n in range(text_rows)]
with open(folder + "/in.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\\n" for row in few)
with open(folder + "/in.csv", "w", newline="") as file:
    lines = csv.writer(file)
    lines.writerow(few[0])
    lines.writerows({**row, "pixels": json.dumps(row["pixels"])}.values() for row in few)
"""


class Cost(NamedTuple):
    """What a process used."""

    rows_per_second: float  # of CPU time, the start included
    megabytes: float  # resident, at most
    seconds: float  # elapsed


class Project(NamedTuple):
    """A project with a deployed model, and a folder for tables."""

    folder: Path
    tables: Path

    def python(self, code: str, *arguments: object) -> str:
        """Run a program in the project; return what it prints."""
        code = code.replace("PACKAGE", self.package)
        command = [self._interpreter, "-c", code, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder, env=self._variables, check=True, stdout=subprocess.PIPE
        ).stdout.decode()

    def score(self, ending: str, rows: int, name: str = "out", kill: float | None = None) -> Cost:
        """Score a table, on one core; with `kill`, send SIGKILL after so many seconds."""
        paths = [str(self.tables / f"{stem}.{ending}") for stem in ("in", name)]
        command = [self._interpreter, "-m", f"{self.package}.cli", "predict"]
        command += ["--input", paths[0], "--output", paths[1], "--overwrite"]
        started = time.monotonic()
        process = subprocess.Popen(
            ["taskset", "--cpu-list", "0", *command],
            cwd=self.folder,
            env=self._variables,
            stderr=subprocess.DEVNULL,
        )
        if kill:
            time.sleep(kill)
            os.kill(process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, -signal.SIGKILL if kill else 0):
            sys.exit(f"error: {' '.join(command)} ended with {process.returncode}")
        seconds = time.monotonic() - started
        cpu = usage.ru_utime + usage.ru_stime
        return Cost(rows / cpu, usage.ru_maxrss / 1024, seconds)

    @property
    def package(self) -> str:
        return next(self.folder.glob("src/*/cli.py")).parent.name

    @property
    def _interpreter(self) -> str:
        return str(self.folder / ".venv/bin/python")

    @property
    def _variables(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder / "src")}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--project", type=Path, default=ROOT / "build" / "demo" / "digit-reader")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = Project(options.project.resolve(), Path(name))
        project.python(TABLES, name, options.rows, TEXT_ROWS)
        print(report(project, options.rows, options.rounds))
    return 0


def report(project: Project, rows: int, rounds: int) -> str:
    """Measure; return the section of docs/benchmarks.md."""
    # 1. Ratios within a round, so that a slower machine slows both.
    ratios, bounds, costs = [], [], []
    for _ in range(rounds):
        bounds.append(json.loads(project.python(BOUND, rows // 4)))
        costs.append(project.score("parquet", rows))
        ratios.append(costs[-1].rows_per_second / bounds[-1])
        print(f"round: {ratios[-1]:.3f}", file=sys.stderr)
    text = {ending: project.score(ending, TEXT_ROWS) for ending in ("csv", "jsonl")}
    # 2. Kills at random moments of an undisturbed job, then once to the end.
    draw, seconds = random.Random(0), statistics.median(cost.seconds for cost in costs)
    for _ in range(KILLS):
        project.score("parquet", rows, "killed", draw.uniform(0.2, 0.5) * seconds)
    project.score("parquet", rows, "killed")
    same = "from pyarrow.parquet import read_table as r; import sys; a, b = map(r, sys.argv[1:])\n"
    same += "print(a.equals(b), a.num_rows)"
    equal = project.python(same, *(project.tables / f"{n}.parquet" for n in ("out", "killed")))
    if equal.split() != ["True", str(rows)]:
        sys.exit(
            f"error: killed {KILLS} times, the table differs from the undisturbed one: {equal}"
        )
    # 3. The section.
    middle: Callable[[list[float]], float] = statistics.median
    lines = [
        f"{rounds} rounds of {rows:,} rows, one core of {platform.machine()}, Python "
        f"{platform.python_version()}, {date.today()}. Rows per second of CPU time.",
        "",
        "| | rows/s | peak MB |",
        "| --- | ---: | ---: |",
        f"| ONNX Runtime on arrays, 1,024 a call | {middle(bounds):,.0f} | |",
        f"| Parquet to Parquet | {middle([c.rows_per_second for c in costs]):,.0f} | "
        f"{max(c.megabytes for c in costs):.0f} |",
        *(
            f"| {ending} to {ending}, {TEXT_ROWS:,} rows | {cost.rows_per_second:,.0f} | "
            f"{cost.megabytes:.0f} |"
            for ending, cost in text.items()
        ),
        "",
        f"Parquet ÷ ONNX Runtime: {middle(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}).",
        f"Killed {KILLS} times with SIGKILL and repeated: the table equals the undisturbed one.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
