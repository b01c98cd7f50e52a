"""What a new model learns from besides the original data: the log's labelled requests.

They are kept in numbered files, each holding all lines of the one before it and the new ones. New
lines are divided in order of time, the latest to test, for neighbours resemble each other; a line
keeps its split for ever. What was held out once, here or in the original data, is never trained on.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..config import RetrainSettings
from ..interfaces import Arrays, join_rows
from ..store.queries import LabelledExample
from ..task import objective
from ..task.data import Dataset
from ..training import feedback_data
from ..training.feedback_data import FeedbackRow, Split

COMPARED_DECIMALS = 3  # that values are compared with: a request's numbers are rounded on their way


def newest_file(folder: Path) -> Path | None:
    """The file that was written last."""
    return max(folder.glob("[0-9]*.jsonl"), default=None)


def next_file(folder: Path, rows: Sequence[FeedbackRow]) -> Path:
    """The name of a file with these rows: its number, and the hash of its content."""
    last = newest_file(folder)
    number = int(last.name.split("-")[0]) + 1 if last else 1
    digest = hashlib.sha256(feedback_data.feedback_text(rows).encode()).hexdigest()
    return folder / f"{number:05d}-{digest[:8]}.jsonl"


def read_collected(folder: Path) -> list[FeedbackRow]:
    """All that was ever taken from the log."""
    path = newest_file(folder)
    return feedback_data.read_feedback_rows(path) if path else []


def uncollected(
    log: Sequence[LabelledExample], rows: Sequence[FeedbackRow]
) -> list[LabelledExample]:
    """What of the log was never taken."""
    keys = {row.key for row in rows}
    return [one for one in log if (one.request_id, one.item) not in keys]


def collect_rows(
    dataset: Dataset,
    rows: Sequence[FeedbackRow],
    log: Sequence[LabelledExample],
    rules: RetrainSettings,
) -> list[FeedbackRow]:
    """All rows of the next file: the known ones with today's truths, then the log's new ones.

    `dataset` is the original data. What the contract cannot use is `unused`.
    """
    old = _corrected(rows, log)
    altered = [row for row, before in zip(old, rows, strict=True) if row is not before]
    new = [_row(one) for one in uncollected(log, rows)]
    useless = {row.key for row in [*altered, *new] if feedback_data.why_unusable(dataset, row)}
    divided = assign_splits([row for row in new if row.key not in useless], rules, bool(rows))
    left_out = [row for row in new if row.key in useless]
    old = [_into(row, "unused") if row.key in useless else row for row in old]
    return without_leaks(dataset, [*old, *sorted([*divided, *left_out], key=_time)])


def assign_splits(
    rows: Sequence[FeedbackRow], rules: RetrainSettings, continued: bool
) -> list[FeedbackRow]:
    """New rows with their splits: in order of time the first train, the last test.

    Rows next to another split's may hold the same values (a series' windows), so `BLOCK` - 1 of
    them are left out wherever a split begins. With too few rows for that, none is taken yet.
    """
    rows = sorted(rows, key=_time)
    if len(rows) < min_new_rows(continued):
        return []
    gap = objective.BLOCK_LENGTH - 1
    count = len(rows) - _lost(continued)
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
    return [_into(row, split) for row, split in zip(rows, splits, strict=True)]


def min_new_rows(continued: bool) -> int:
    """New rows from which on they are divided: no more than half of them are left out."""
    return max(len(feedback_data.SPLITS), 2 * _lost(continued))


def _lost(continued: bool) -> int:
    """Rows left out between splits; the first part also follows a split where there are rows."""
    return (objective.BLOCK_LENGTH - 1) * (3 if continued else 2)


def without_leaks(dataset: Dataset, rows: Sequence[FeedbackRow]) -> list[FeedbackRow]:
    """The rows without exact copies in two splits: a copy of what the original data holds out is
    left out, another copy goes where the first one went."""
    used = [row for row in rows if row.split != "unused"]
    if not used:
        return list(rows)
    own = dataset.encode_labelled([row.pair() for row in used])
    held_out = join_rows(dataset.validation, dataset.test, dataset.pad_value)
    marks = list(_marks(join_rows(held_out, own, dataset.pad_value)))
    places: dict[bytes, Split] = dict.fromkeys(marks[: -len(used)], "unused")
    splits: dict[tuple[str, int], Split] = {
        row.key: places.setdefault(mark, row.split)
        for row, mark in zip(used, marks[-len(used) :], strict=True)
    }
    return [_into(row, splits.get(row.key, row.split)) for row in rows]


def _marks(split: Arrays) -> Iterator[bytes]:
    """A digest of each row's content; flags are not content."""
    arrays = [array for array in split.values() if array.dtype.kind != "b"]
    rounded = [
        array if array.dtype.kind in "iu" else array.round(COMPARED_DECIMALS) + 0.0
        for array in arrays
    ]
    for row in zip(*rounded, strict=True):
        yield hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in row)).digest()


def _corrected(rows: Sequence[FeedbackRow], log: Sequence[LabelledExample]) -> list[FeedbackRow]:
    truths = {(one.request_id, one.item): one.truth for one in log}
    changed = {
        row.key: truth
        for row in rows
        if row.key in truths and (truth := json.loads(truths[row.key])) != row.truth
    }
    return [
        row.model_copy(update={"truth": changed[row.key]}) if row.key in changed else row
        for row in rows
    ]


def _row(one: LabelledExample) -> FeedbackRow:
    item, truth = json.loads(one.input), json.loads(one.truth)
    return FeedbackRow(
        request_id=one.request_id,
        index=one.item,
        at=one.at,
        split="unused",
        item=item,
        truth=truth,
    )


def _into(row: FeedbackRow, split: Split) -> FeedbackRow:
    return row if row.split == split else row.model_copy(update={"split": split})


def _time(row: FeedbackRow) -> tuple[float, str, int]:
    return row.at, *row.key
