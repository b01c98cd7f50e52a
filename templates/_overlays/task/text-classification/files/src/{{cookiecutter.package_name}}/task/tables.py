"""Read texts and their classes from tables: CSV, JSON, Parquet."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..config import UserError
from .settings import DataSettings
from .table import Table, read_table
from .table_settings import shown
from .texts import SPLIT_NAMES, Corpus, LabelledTexts, split_by_hash

LONGEST_CLASS = 200  # characters; feedback takes no longer name
LABEL_MARKS = "|;,"  # that people put between several labels of one text


class TextRow(NamedTuple):
    """A text in a file."""

    text: str
    label: str
    split: str
    table: Table
    place: int


def read_tables(settings: DataSettings) -> Corpus:
    """Read the files; UserError in one line that names file, row and column of an error.

    A text in several rows counts once, and is never in two splits.
    """
    path = settings.path
    assert path is not None, "checked by the settings"
    # 1. Read the rows, the test file's first: texts that are in both files stay in test.
    rows: list[TextRow] = []
    notes: list[str] = []
    files = [(settings.test_path, "test")] if settings.test_path is not None else []
    for file, split in [*files, (path, None)]:
        rows += _text_rows(file, settings, split, notes)
    # 2. Remove copies, and texts in two classes.
    kept, left_out = _without_copies(rows, settings)
    notes += left_out
    by_split = {name: LabelledTexts() for name in SPLIT_NAMES}
    for row in kept:
        by_split[row.split].add(row.text, row.label)
    # 3. Describe the data for the report.
    about = f"{len(kept):,} texts of {path.name}"
    if settings.test_path is not None:
        about += f" and, for test, {settings.test_path.name}"
    elif settings.split is None:
        about += "; each text's hash decides its split"
    notes += _note_on_several_labels({row.label for row in kept})
    return Corpus(by_split, list(by_split["train"].texts), str(path), f"{about}.", notes)


def _without_copies(
    rows: list[TextRow], settings: DataSettings
) -> tuple[list[TextRow], Iterator[str]]:
    """Return the first row of each text, none that is in two classes, and notes on the others."""
    first: dict[str, TextRow] = {}
    conflicting: set[str] = set()
    for row in rows:
        copy = first.setdefault(row.text, row)
        if copy.label != row.label:
            conflicting.add(row.text)
            if settings.conflicts == "refuse":
                there = f"{copy.table.path.name}, row {copy.table.row(copy.place)}"
                reason = (
                    f"is {shown(row.label)} for the text that is {shown(copy.label)} in {there}; "
                    "data.conflicts=drop leaves such texts out"
                )
                raise row.table.error(row.place, settings.label, reason)
    distinct: dict[tuple[str, str], TextRow] = {}
    for row in rows:
        if row.text not in conflicting:
            distinct.setdefault((_bare(row.text), row.label), row)
    in_two_classes = sum(row.text in conflicting for row in rows)
    copies = len(rows) - in_two_classes - len(distinct)

    def notes() -> Iterator[str]:
        if in_two_classes:
            yield f"{in_two_classes:,} rows were left out: their texts are in two classes."
        if copies:
            yield (
                f"{copies:,} rows were left out: they repeat a text of their class (but for case, "
                "blanks or a final mark)."
            )

    return list(distinct.values()), notes()


def _bare(text: str) -> str:
    """Return what copies of a text share: all but case, blanks and punctuation at the end."""
    return text.casefold().rstrip(" .,;:!?…") or text


def _text_rows(
    path: Path, settings: DataSettings, split: str | None, notes: list[str]
) -> Iterator[TextRow]:
    """Yield a file's rows; those of a file without a fixed `split` by column or by hash."""
    table = read_table(path, settings.table)
    notes += table.notes
    columns = [table.texts(name, "data.text") for name in settings.text]
    texts = [" ".join(" ".join(cells).split()) for cells in zip(*columns, strict=True)]
    labels = [cell.strip() for cell in table.texts(settings.label, "data.label")]
    splits = None
    if split is None and settings.split is not None:
        splits = table.texts(settings.split, "data.split")
    skipped: Counter[str] = Counter()
    for place, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if kind := _left_out(table, place, text, label, settings):
            skipped[kind] += 1
            continue
        row_split = splits[place].strip() if splits is not None else split
        if row_split is not None and row_split not in SPLIT_NAMES:
            reason = f"is {shown(row_split)}, must be one of {', '.join(SPLIT_NAMES)}"
            raise table.error(place, settings.split, reason)
        label = settings.names.get(label, label)
        yield TextRow(text, label, row_split or split_by_hash(text, settings), table, place)
    for kind, count in skipped.items():
        notes.append(f"{path.name}: {count:,} rows {kind} were left out.")
    if skipped.total() == len(table):
        raise UserError(f"{path}: every row is without text or class, or has several labels")


def _left_out(
    table: Table, place: int, text: str, label: str, settings: DataSettings
) -> str | None:
    """Return the kind of row that is to be left out, None for a usable one; UserError if bad."""
    if not text or not label:
        if settings.empty == "drop":
            return "without text or class"
        column = settings.label if text else "+".join(settings.text)
        raise table.error(place, column, "is empty; data.empty=drop leaves such rows out")
    if settings.label_separator and settings.label_separator in label:
        return "with several labels"
    if len(label) > LONGEST_CLASS:
        reason = f"{shown(label)} is longer than {LONGEST_CLASS} characters; is it a class?"
        raise table.error(place, settings.label, f"{reason} (data.label)")
    return None


def _note_on_several_labels(labels: set[str]) -> Iterator[str]:
    """Tell that classes look like lists of other classes."""
    for mark in LABEL_MARKS:
        lists = sorted(
            label
            for label in labels
            if mark in label and labels.issuperset(part.strip() for part in label.split(mark))
        )
        if lists:
            yield (
                f"{len(lists)} classes, for example {shown(lists[0])}, look like several labels: "
                "each combination is a class of its own, since a text has one class here; "
                f"data.label_separator={mark!r} leaves texts with several labels out."
            )
