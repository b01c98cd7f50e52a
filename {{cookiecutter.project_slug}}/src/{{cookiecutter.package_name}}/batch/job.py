"""Score a file in parts, so that a killed job goes on where it was."""

import json
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from filelock import FileLock, Timeout
from pyarrow import ipc
from tqdm import tqdm

from ..config import UserError, WorkError
from ..files import write_atomically, write_json
from ..progress import ProgressLines
from . import tables
from .scorer import Scorer
from .tables import Block, Source

# Arrow's other pools keep 40 MB more, and are no faster here.
pa.set_memory_pool(pa.system_memory_pool())

PART_SECONDS = 5.0  # of work that a kill loses
FEWEST_ROWS = 100  # of which one must be valid


class Summary(NamedTuple):
    """What a job did."""

    rows: int
    errors: int
    resumed: int  # rows that were there from an earlier start
    seconds: float


class Job(NamedTuple):
    """A file to be scored into another."""

    source: Source
    output: Path
    scorer: Scorer
    strict: bool  # whether an invalid row ends the job
    threads: int = 1

    @property
    def folder(self) -> Path:
        """The parts so far, beside the output until it is whole."""
        return self.output.with_name(f".{self.output.name}.parts")

    def run(self) -> Summary:
        """Score what is not scored yet, then write the output whole. Raises UserError, WorkError.

        The parts of an earlier job count if input, model and options are the same.
        """
        started = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                self._discard_other()
                if resumed := self._end():
                    _echo(f"resuming at row {resumed + 1:,}")
                try:
                    self._score(resumed)
                    rows, errors = self._write()
                except BaseException:
                    if not self._end():  # nothing that a later start could go on with
                        shutil.rmtree(self.folder)
                    raise
        except Timeout:
            raise WorkError(f"{self.output}: another process is writing it; nothing done") from None
        shutil.rmtree(self.folder)
        return Summary(rows, errors, resumed, time.monotonic() - started)

    def _discard_other(self) -> None:
        """Keep the parts of the same job, delete those of another."""
        about, status = self.folder / "job.json", self.source.path.stat()
        job = {
            "input": [str(self.source.path.resolve()), status.st_size, status.st_mtime_ns],
            "model": self.scorer.bundle.digest,
            "options": [self.source.names, self.source.paths, list(self.source.added)],
            "batch size": self.scorer.batch_size,
            "strict": self.strict,
        }
        try:
            before = json.loads(about.read_bytes())
        except (OSError, ValueError):
            before = {}
        if before == job:
            return
        changed = [key for key in job if key in before and before[key] != job[key]]
        if changed and self._parts():
            _echo(f"{' and '.join(changed)} changed since the last start: scoring all rows anew")
        for part in self._parts():
            part.unlink()
        write_json(about, job)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-*.arrow"))  # not what a kill left half written

    def _end(self) -> int:
        """Return the number of rows that are scored."""
        parts = self._parts()
        return int(parts[-1].stem.partition("-")[2]) if parts else 0

    def _score(self, start: int) -> None:
        """Write parts, each of which is there whole or not at all."""
        scored = self._tables(start)
        for first in scored:
            end = start

            def write(path: Path, first: pa.Table = first) -> None:
                nonlocal end
                begun = time.monotonic()
                # The format of streams, as categories may differ from table to table.
                with ipc.new_stream(path, first.schema) as writer:
                    for table in chain([first], scored):
                        writer.write_table(table)
                        end += table.num_rows
                        if time.monotonic() - begun > PART_SECONDS:
                            break

            part = self.folder / "part.arrow"
            write_atomically(part, write)
            part.rename(self.folder / f"{start:015d}-{end:015d}.arrow")
            start = end
        if not start:
            raise UserError(f"{self.source.path}: is empty, it has no rows to score")

    def _tables(self, start: int) -> Iterator[pa.Table]:
        """Score block by block, and report progress."""
        report, begun = ProgressLines(_echo), time.monotonic()
        end, valid, first_problem = start, 0, ""
        style = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        with tqdm(desc="scoring", total=1, bar_format=style, leave=False, disable=None) as bar:
            for block, scored in self._predicted(start):
                problems = scored["error"].combine_chunks()
                if not first_problem and problems.null_count < block.rows:
                    row = problems.is_valid().index(True).as_py()
                    problem = f"row {end + row + 1}: {problems[row]}"
                    first_problem = f"{self.source.path}: {problem}"
                end, valid = end + block.rows, valid + problems.null_count
                if first_problem and self.strict:
                    raise WorkError(f"{first_problem}; without --strict such rows get an error")
                if first_problem and not valid and (block.share == 1 or end >= FEWEST_ROWS):
                    raise UserError(f"{first_problem}; none of the first {end:,} rows is valid")
                made = dict(zip(self.source.added, scored.columns, strict=True))
                yield pa.table({**block.kept, **made})
                rate = (end - start) / (time.monotonic() - begun)
                text = f"{end:,} rows, {rate:,.0f} rows/s"
                bar.update(block.share - bar.n)
                bar.set_postfix_str(text)
                report(f"scoring: {block.share:.0%}, {text}")

    def _predicted(self, start: int) -> Iterator[tuple[Block, pa.Table]]:
        """Yield each block with its predictions, in order; a few are in progress meanwhile."""
        waiting: deque[tuple[Block, Future[pa.Table]]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            for block in self.source.blocks(start):
                predict, columns = self.scorer.predict, (block.columns, block.rows, block.errors)
                waiting.append((block, pool.submit(predict, *columns)))
                if len(waiting) > self.threads:
                    block, future = waiting.popleft()
                    yield block, future.result()
            while waiting:
                block, future = waiting.popleft()
                yield block, future.result()

    def _write(self) -> tuple[int, int]:
        """Write the output from the parts; return its rows and how many have an error."""
        errors, manifest = self.source.added[-1], self.scorer.bundle.manifest
        with ipc.open_stream(self._parts()[0]) as reader:
            schema = reader.schema
        about = {"model": manifest.name, "model_version": manifest.version}

        def write(path: Path) -> None:
            tables.write_tables(path, self.output.suffix, schema, self._read, about)

        write_atomically(self.output, write)
        counts = [(table.num_rows, table[errors].null_count) for table in self._read()]
        rows, valid = map(sum, zip(*counts, strict=True))
        return rows, rows - valid

    def _read(self) -> Iterator[pa.Table]:
        """Read the parts, table by table."""
        for part in self._parts():
            with pa.OSFile(str(part)) as file, ipc.open_stream(file) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])


def _echo(text: str) -> None:
    print(text, file=sys.stderr)
