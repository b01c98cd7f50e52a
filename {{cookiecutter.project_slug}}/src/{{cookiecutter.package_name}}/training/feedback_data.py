"""Labelled requests that join the data: a file with one JSON line each, and how it is read.

Every line keeps the split it was given once, so that what is held out is never trained on.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..config import UserError
from ..files import write_text
from ..interfaces import LabelledItem
from ..task.contract import GroundTruth, Item
from ..task.data import Dataset

Split = Literal["train", "validation", "test", "unused"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class FeedbackRow(BaseModel):
    """One item of a request with its truth; `unused` rows are kept, so that they stay unused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: str
    index: int  # of the item in its request
    at: float  # seconds since the epoch
    split: Split
    item: Any
    truth: Any

    @property
    def key(self) -> tuple[str, int]:
        return self.request_id, self.index

    def pair(self) -> LabelledItem:
        """Item and truth as the contract knows them. Raises ValueError when it does not."""
        return Item.model_validate(self.item), GroundTruth.model_validate(self.truth)


def read_feedback_rows(path: Path) -> list[FeedbackRow]:
    """The rows of a file; UserError naming file and line."""
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror} (live.feedback)") from None
    rows: dict[tuple[str, int], FeedbackRow] = {}
    lines = content.removesuffix("\n").split("\n") if content else []
    for number, line in enumerate(lines, 1):  # splitlines() would also cut at signs within texts
        try:
            row = FeedbackRow.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{path}: line {number}: {_reason(error)}") from None
        if rows.setdefault(row.key, row) is not row:
            item = f"item {row.index} of request {row.request_id}"
            raise UserError(f"{path}: line {number}: {item} stands twice")
    return list(rows.values())


def write_feedback_rows(path: Path, rows: Iterable[FeedbackRow]) -> None:
    """Write the file, whole or not at all."""
    write_text(path, feedback_text(rows))


def feedback_text(rows: Iterable[FeedbackRow]) -> str:
    """The content of a file with these rows."""
    return "".join(f"{row.model_dump_json()}\n" for row in rows)


def with_feedback(dataset: Dataset, path: Path) -> Dataset:
    """The dataset with a file's rows at the ends of its splits; UserError naming file and line."""
    lines = list(enumerate(read_feedback_rows(path), 1))
    fresh: dict[str, list[LabelledItem]] = {name: [] for name in SPLITS}
    for number, row in lines:
        if row.split == "unused":
            continue
        try:
            fresh[row.split].append(row.pair())
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {_reason(error)}") from None
    try:
        return dataset.with_examples(fresh)
    except ValueError:
        for number, row in lines:
            if row.split != "unused" and (reason := why_unusable(dataset, row)):
                raise UserError(f"{path}: line {number}: {reason}") from None
        raise


def why_unusable(dataset: Dataset, row: FeedbackRow) -> str | None:
    """Why a row cannot become an example, None when it can."""
    try:
        dataset.encode_labelled([row.pair()])
    except ValueError as error:
        return _reason(error)
    return None


def _reason(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
    return str(error)
