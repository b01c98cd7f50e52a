"""Collect the log's labelled requests, from which a new model learns besides the original data.

Collected rows are kept in numbered files; each holds all rows of the one before and the new ones.
New rows are split in order of time, the latest to test, as neighbours resemble each other. A row
keeps its split for ever, a caller stays in the split that it was seen in first, and no copy of a
held-out row, here or in the original data, is trained on.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..arrays import hash_rows, join_rows
from ..base_settings import RetrainSettings
from ..store.queries import LabelledExample
from ..task import objective
from ..task.data import Dataset
from ..training import feedback_data
from ..training.feedback_data import FeedbackRow, Split


def newest_file(folder: Path) -> Path | None:
    """Return the file of rows that was written last."""
    return max(folder.glob("[0-9]*.jsonl"), default=None)


def next_file(folder: Path, rows: Sequence[FeedbackRow]) -> Path:
    """Name the next file with these rows: its number, and the hash of its content."""
    last = newest_file(folder)
    number = int(last.name.split("-")[0]) + 1 if last else 1
    digest = hashlib.sha256(feedback_data.feedback_text(rows).encode()).hexdigest()
    return folder / f"{number:05d}-{digest[:8]}.jsonl"


def read_collected(folder: Path) -> list[FeedbackRow]:
    """Read all rows that were ever collected."""
    path = newest_file(folder)
    return feedback_data.read_feedback_rows(path) if path else []


def uncollected(
    log: Sequence[LabelledExample], rows: Sequence[FeedbackRow]
) -> list[LabelledExample]:
    """Return the log's examples that are not among the collected rows."""
    keys = {row.key for row in rows}
    return [example for example in log if example.key not in keys]


def collect_rows(
    original: Dataset,
    rows: Sequence[FeedbackRow],
    log: Sequence[LabelledExample],
    rules: RetrainSettings,
) -> list[FeedbackRow]:
    """Return all rows of the next file: the collected `rows` with today's labels, then new ones.

    Rows that the contract cannot use become `unused`.
    """
    labels = {example.key: example.truth for example in log}
    old = [row.model_copy(update={"truth": labels.get(row.key, row.truth)}) for row in rows]
    corrected = [row for row, before in zip(old, rows, strict=True) if row != before]
    new = [to_row(example) for example in uncollected(log, rows)]
    unusable = {row.key for row in [*corrected, *new] if feedback_data.why_unusable(original, row)}
    usable = [row for row in new if row.key not in unusable]
    split = split_by_caller(usable, rules, rows)
    left_out = [row for row in new if row.key in unusable]
    old = [_with_split(row, "unused") if row.key in unusable else row for row in old]
    return without_leaks(original, [*old, *sorted([*split, *left_out], key=_by_time)])


def to_row(example: LabelledExample) -> FeedbackRow:
    """Turn an example of the log into a row without a split yet."""
    return FeedbackRow(**vars(example), split="unused")


def assign_splits(
    rows: Sequence[FeedbackRow],
    rules: RetrainSettings,
    continued: bool,
    order: Callable[[FeedbackRow], Any] | None = None,
) -> list[FeedbackRow]:
    """Split new rows in order of time, or of another key: the first train, the last test.

    Neighbours may hold the same values (windows of a series), so a gap of `BLOCK_LENGTH` - 1 rows
    is left out before each split; before the first one only if rows were collected before
    (`continued`). With too few rows for that, none is taken yet.
    """
    rows = sorted(rows, key=order or _by_time)
    if len(rows) < min_new_rows(continued):
        return []
    gap = objective.BLOCK_LENGTH - 1
    count = len(rows) - _gap_rows(continued)
    test = max(1, round(rules.test_share * count))
    validation = max(1, round(rules.validation_share * count))
    sizes: list[tuple[Split, int]] = [
        ("unused", gap if continued else 0),
        ("train", count - test - validation),
        ("unused", gap),
        ("validation", validation),
        ("unused", gap),
        ("test", test),
    ]
    splits: list[Split] = [name for name, size in sizes for _ in range(size)]
    return [_with_split(row, split) for row, split in zip(rows, splits, strict=True)]


def split_by_caller(
    new: list[FeedbackRow], rules: RetrainSettings, before: Sequence[FeedbackRow]
) -> list[FeedbackRow]:
    """Split new rows so that a caller, whose requests repeat each other, is in one split: the one
    that it has, else by the time of its first row. Rows without a caller are on their own.

    Where that would leave a split empty, as with one caller that sends everything, rows are split
    by time alone.
    """
    first: dict[str, Any] = {}
    for row in sorted(new, key=_by_time):
        first.setdefault(row.caller, _by_time(row))

    def order(row: FeedbackRow) -> Any:
        return (first[row.caller] if row.caller else _by_time(row)), _by_time(row)

    split = assign_splits(new, rules, bool(before), order)
    places: dict[str, Split] = {}
    for row in [*before, *split]:
        if row.caller and row.split != "unused":
            places.setdefault(row.caller, row.split)
    kept = [
        row if row.split == "unused" else _with_split(row, places.get(row.caller, row.split))
        for row in split
    ]
    complete = {row.split for row in kept} >= set(feedback_data.SPLITS)
    return kept if complete else assign_splits(new, rules, bool(before))


def min_new_rows(continued: bool) -> int:
    """Return how many new rows can be split: at most half of them may fall into gaps."""
    return max(len(feedback_data.SPLITS), 2 * _gap_rows(continued))


def without_leaks(original: Dataset, rows: Sequence[FeedbackRow]) -> list[FeedbackRow]:
    """Keep exact copies in one split: a copy of what the original data holds out becomes
    `unused`, another copy joins the split of the first one."""
    if not (used := [row for row in rows if row.split != "unused"]):
        return list(rows)
    encoded = original.encode_labelled([row.pair() for row in used])
    held_out = join_rows(original.validation, original.test, original.pad_value)
    hashes = list(hash_rows(join_rows(held_out, encoded, original.pad_value)))
    places: dict[bytes, Split] = dict.fromkeys(hashes[: -len(used)], "unused")
    splits: dict[tuple[str, int], Split] = {
        row.key: places.setdefault(digest, row.split)
        for row, digest in zip(used, hashes[-len(used) :], strict=True)
    }
    return [_with_split(row, splits.get(row.key, row.split)) for row in rows]


def _gap_rows(continued: bool) -> int:
    return (objective.BLOCK_LENGTH - 1) * (3 if continued else 2)


def _with_split(row: FeedbackRow, split: Split) -> FeedbackRow:
    return row.model_copy(update={"split": split})


def _by_time(row: FeedbackRow) -> tuple[float, str, int]:
    return row.at, *row.key
