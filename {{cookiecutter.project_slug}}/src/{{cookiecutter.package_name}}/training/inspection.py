"""Look at the data before training: `data` prints all of it, `train` only what is wrong.

Every task's splits are checked here for what holds for any data; `task/inspection.py` adds the
rest. Columns are read in chunks, and of very large ones only every so many rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..arrays import Arrays, hash_rows, in_chunks, row_count, select_rows
from ..config import UserError
from ..interfaces import Finding, Inspection
from ..task import inspection
from ..task.contract import INPUTS
from ..task.data import Dataset
from ..task.settings import Settings

SPLITS = ("train", "validation", "test")
READ_BYTES = 2**32  # of a split; of a larger one every so many rows are read
# With half of the test rows in training, results measure memory; with half of the answers
# contradicted, the answers are probably not those of these rows. Less may be the data's nature.
ERROR_SHARE = 0.5
WARNING_SHARE = 0.01


@dataclass
class ColumnStats:
    """What was seen of a column of numbers."""

    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    count: int = 0
    not_finite: int = 0
    is_float: bool = False

    def add(self, values: np.ndarray) -> None:
        self.is_float = values.dtype.kind == "f"
        finite = values[np.isfinite(values)] if self.is_float else values
        self.not_finite += values.size - finite.size
        if finite.size:
            self.low = min(self.low, float(finite.min()))
            self.high = max(self.high, float(finite.max()))
            self.total += float(finite.sum(dtype=float))
            self.count += finite.size


@dataclass
class SplitStats:
    """What was seen of a split; `keys` (row,) are equal where examples are."""

    rows: int
    every: int = 1  # one of so many rows was read
    columns: dict[str, ColumnStats] = field(default_factory=dict)
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    answers: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


def inspect_data(dataset: Dataset, settings: Settings) -> Inspection:
    """Inspect a data set. Never raises for what is wrong with it."""
    stats = {name: _read_split(getattr(dataset, name)) for name in SPLITS}
    if not all(each.rows for each in stats.values()):
        empty = [f"the {name} split is empty" for name in SPLITS if not stats[name].rows]
        raise UserError("; ".join(empty))
    special = inspection.inspect(dataset, settings)
    tables = {"Splits": _split_table(stats), **_column_table(stats), **special.tables}
    return Inspection(tables, [*_findings(stats), *special.findings], special.plot)


def refuse_errors(found: Inspection) -> list[str]:
    """Return the warnings. Raises UserError, a line each, if there are errors."""
    if errors := [finding.text for finding in found.findings if finding.level == "error"]:
        raise UserError("\n".join(errors))
    return [finding.text for finding in found.findings]


def _read_split(split: Arrays) -> SplitStats:
    rows = row_count(split)
    size = sum(a.dtype.itemsize * int(np.prod(a.shape)) for a in split.values())
    every = max(1, -(-size // READ_BYTES))
    stats = SplitStats(rows, every, {name: ColumnStats() for name in split})
    keys, answers = [], []
    for chunk in in_chunks(select_rows(split, np.arange(0, rows, every)) if every > 1 else split):
        for name, values in chunk.items():
            stats.columns[name].add(values)
        if inspection.EXAMPLE:
            example = {name: chunk[name] for name in inspection.EXAMPLE}
            keys.append(np.frombuffer(b"".join(h[:8] for h in hash_rows(example)), np.uint64))
        if inspection.ANSWER:
            answers.append(chunk[inspection.ANSWER])
    stats.keys = np.concatenate([stats.keys, *keys])
    stats.answers = np.concatenate([stats.answers, *answers])
    return stats


def _findings(stats: dict[str, SplitStats]) -> Iterator[Finding]:
    for name, split in stats.items():
        for column, values in split.columns.items():
            if values.not_finite:
                yield Finding(
                    "error",
                    f"{values.not_finite:,} values of {column!r} in the {name} split are missing "
                    "or not finite (NaN or infinite)",
                )
    if not inspection.EXAMPLE:
        return
    train, keys = stats["train"], [split.keys for split in stats.values()]
    if len(np.unique(train.keys)) == 1:
        yield Finding("error", f"all {train.rows:,} training rows have the same inputs")
    for name in SPLITS[1:]:
        copies, read = copies_of(train.keys, stats[name].keys), len(stats[name].keys)
        yield from _by_share(
            copies / read,
            f"{copies:,} of the {read:,} {name} rows are in the training split too, so results on "
            "them measure memory; remove the copies, or check whether two files are the same",
        )
    if inspection.ANSWER:
        wrong = contradicted(
            np.concatenate(keys), np.concatenate([s.answers for s in stats.values()])
        )
        total = sum(map(len, keys))
        yield from _by_share(
            wrong / total,
            f"{wrong:,} of the {total:,} rows have the same inputs as another row and another "
            f"{inspection.ANSWER}; check the {inspection.ANSWER}s",
        )


def _by_share(share: float, text: str) -> Iterator[Finding]:
    if share >= WARNING_SHARE:
        yield Finding("error" if share >= ERROR_SHARE else "warning", text)


def copies_of(keys: np.ndarray, others: np.ndarray) -> int:
    """Count the `others` (n,) that are among `keys` (m,)."""
    return int(np.isin(others, keys).sum())


def contradicted(keys: np.ndarray, answers: np.ndarray) -> int:
    """Count the rows (n,) of whose key there is a row with another answer."""
    pairs = np.unique(np.stack([keys, answers.astype(np.uint64)]), axis=1)
    unique, counts = np.unique(pairs[0], return_counts=True)
    return copies_of(unique[counts > 1], keys)


def _split_table(stats: dict[str, SplitStats]) -> list[list[str]]:
    total = sum(split.rows for split in stats.values())
    table = [["Split", "Rows", "Share", "Different rows", "Also in training"]]
    for name, split in stats.items():
        row = [name, f"{split.rows:,}", f"{split.rows / total:.1%}", "", ""]
        if inspection.EXAMPLE:
            row[3] = f"{len(np.unique(split.keys)):,}"
            row[4] = "" if name == "train" else f"{copies_of(stats['train'].keys, split.keys):,}"
        if split.every > 1:
            row[1] += f" (1 of {split.every} read)"
        table.append(row)
    return table if inspection.EXAMPLE else [row[:3] for row in table]


def _column_table(stats: dict[str, SplitStats]) -> dict[str, list[list[str]]]:
    """Tabulate the columns that are measurements; integers are codes, whose mean says nothing."""
    table: list[list[str]] = []
    for name, split in stats.items():
        for column, of in split.columns.items():
            if of.is_float and column in {*INPUTS, "target"}:
                numbers = (of.low, of.total / max(of.count, 1), of.high)
                row = [name, column, *(f"{value:.4g}" for value in numbers), f"{of.not_finite:,}"]
                table.append(row)
    head = ["Split", "Column", "Lowest", "Mean", "Highest", "Missing"]
    return {"Inputs and targets as the network gets them": [head, *table]} if table else {}
