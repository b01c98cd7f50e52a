"""Labelled requests as training data: JSON Lines files, and how a dataset is extended by them.

A row keeps the split that it got first, so held-out rows are never trained on.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..arrays import evenly_spaced, row_count
from ..base_settings import RetrainSettings
from ..config import UserError
from ..files import first_error
from ..interfaces import LabelledItem
from ..task.contract import GroundTruth, Item
from ..task.data import Dataset

Split = Literal["train", "validation", "test", "unused"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class FeedbackRow(BaseModel):
    """One item of a request with its ground truth; stored `unused` rows stay unused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: str
    index: int  # of the item in its request
    at: float  # seconds since the epoch
    split: Split
    item: Any
    truth: Any
    caller: str = ""  # a hash, the same in all A/B tests; empty: unknown

    @property
    def key(self) -> tuple[str, int]:
        return self.request_id, self.index

    def pair(self) -> LabelledItem:
        """Parse item and truth by the contract. Raises ValueError when they are invalid."""
        return Item.model_validate(self.item), GroundTruth.model_validate(self.truth)


def read_feedback_rows(path: Path) -> list[FeedbackRow]:
    """Read the rows of a file. Raises UserError naming file and line."""
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror} (live.feedback)") from None
    rows: dict[tuple[str, int], FeedbackRow] = {}
    lines = content.removesuffix("\n").split("\n") if content else []
    for number, line in enumerate(lines, 1):  # splitlines() would also cut at U+2028 in texts
        try:
            row = FeedbackRow.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{path}: line {number}: {first_error(error)}") from None
        if rows.setdefault(row.key, row) is not row:
            item = f"item {row.index} of request {row.request_id}"
            raise UserError(f"{path}: line {number}: duplicate {item}")
    return list(rows.values())


def feedback_text(rows: Iterable[FeedbackRow]) -> str:
    """Format rows as a file's content, a JSON line each."""
    return "".join(f"{row.model_dump_json()}\n" for row in rows)


def with_feedback(dataset: Dataset, path: Path, rules: RetrainSettings) -> Dataset:
    """Append a file's rows to the splits of a dataset. Raises UserError naming file and line.

    Training rows older than `rules.window_days` before the newest are left out. To reach
    `rules.production_share`, as many original rows as needed are dropped, evenly spaced, and in
    training the others replaced by repetitions. The test rows stay as they are.
    """
    rows = read_feedback_rows(path)
    chosen = {name: [row for row in rows if row.split == name] for name in SPLITS}
    notes = []
    # 1. Leave out old requests.
    newest = max((row.at for row in chosen["train"]), default=0.0)
    oldest = newest - 86400 * (rules.window_days or math.inf)
    recent = [row for row in chosen["train"] if row.at >= oldest]
    if old := len(chosen["train"]) - len(recent):
        notes.append(f"{old} labelled requests are too old to train on (retrain.window_days).")
    # 2. Give the others their share.
    original = {name: row_count(getattr(dataset, name)) for name in ("train", "validation")}
    share, total = rules.production_share, original["train"] + len(recent)
    if recent and len(recent) < share * total:
        validating = len(chosen["validation"])
        kept = {
            "train": round((1 - share) * total),
            "validation": min(original["validation"], round((1 / share - 1) * validating)),
        }
        dataset = dataset.keep_rows(
            {name: evenly_spaced(original[name], count) for name, count in kept.items()}
        )
        notes.append(
            f"{kept['train']} of {original['train']} original training examples are kept, and "
            f"{len(recent)} labelled requests fill the rest (retrain.production_share)."
        )
        recent = list(islice(cycle(recent), total - kept["train"]))
    # 3. Join them.
    chosen["train"] = recent
    try:
        pairs = {name: [row.pair() for row in chosen[name]] for name in SPLITS}
        return replace(dataset.with_examples(pairs), notes=(*dataset.notes, *notes))
    except ValueError:  # of all rows together: find the line
        for number, row in enumerate(rows, 1):
            if row.split != "unused" and (reason := why_unusable(dataset, row)):
                raise UserError(f"{path}: line {number}: {reason}") from None
        raise


def why_unusable(dataset: Dataset, row: FeedbackRow) -> str | None:
    """Return why a row cannot become an example, None when it can."""
    try:
        dataset.encode_labelled([row.pair()])
    except ValidationError as error:
        return first_error(error)
    except ValueError as error:
        return str(error)
    return None
