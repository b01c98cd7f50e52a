"""The schema of feedback, and files of it for the command feedback.

Free of the database's library, which the server imports only when it needs it.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import UserError

KEYS = ("request_id", "item")  # columns that are no field of the ground truth
GroundTruthT = TypeVar("GroundTruthT", bound=BaseModel)


class Feedback(BaseModel, Generic[GroundTruthT]):
    """The ground truth of one item of an earlier request; `Feedback[GroundTruth]` is a task's."""

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(
        min_length=1, max_length=64, description="the request's id, as its response named it"
    )
    item: int = Field(default=0, ge=0, lt=2**31, description="which of the request's items, from 0")
    truth: GroundTruthT = Field(description="the ground truth: what turned out to be right")


class FeedbackLine(NamedTuple):
    """Feedback, and the row of the file that it ends in."""

    row: int
    feedback: Feedback[Any]


def read_feedback_file(path: Path, schema: type[Feedback[Any]]) -> list[FeedbackLine]:
    """Read CSV or, by the name `.jsonl`, JSON lines; UserError naming row and column.

    `schema` is `Feedback` of the task's ground truth.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    read = _read_json if path.suffix == ".jsonl" else _read_csv
    lines = list(read(path, text, schema))
    if not lines:
        raise UserError(f"{path}: holds no feedback")
    return lines


def _read_json(path: Path, text: str, schema: type[Feedback[Any]]) -> Iterator[FeedbackLine]:
    for row, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield FeedbackLine(row, schema.model_validate_json(line))
            except ValidationError as error:
                raise _row_error(path, row, error) from None


def _read_csv(path: Path, text: str, schema: type[Feedback[Any]]) -> Iterator[FeedbackLine]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader, [])
        if header.count("request_id") != 1:
            raise UserError(f"{path}: row 1: needs one column 'request_id', found {header}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                counts = f"{len(cells)} cells, the header has {len(header)}"
                raise UserError(f"{path}: row {reader.line_num}: has {counts}")
            filled = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            try:
                yield FeedbackLine(reader.line_num, _parse_cells(filled, schema))
            except ValidationError as error:
                raise _row_error(path, reader.line_num, error) from None
    except csv.Error as error:
        raise UserError(f"{path}: row {reader.line_num}: is not CSV: {error}") from None


def _parse_cells(cells: dict[str, str], schema: type[Feedback[Any]]) -> Feedback[Any]:
    """Take a cell as the text that it is or, where that does not fit, as JSON."""
    keys: dict[str, Any] = {name: cell for name, cell in cells.items() if name in KEYS}
    truth: dict[str, Any] = {name: cell for name, cell in cells.items() if name not in KEYS}
    try:
        return schema.model_validate({**keys, "truth": truth})
    except ValidationError as error:
        for detail in error.errors():
            if detail["loc"][0] == "truth" and (name := str(detail["loc"][1])) in truth:
                try:
                    truth[name] = json.loads(cells[name])
                except ValueError:
                    truth[name] = cells[name]
    return schema.model_validate({**keys, "truth": truth})


def _row_error(path: Path, row: int, error: ValidationError) -> UserError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "truth"]
    column = f", column {place[0]!r}" if place else ""
    inside = f"{'.'.join(place[1:])}: " if place[1:] else ""
    return UserError(f"{path}: row {row}{column}: {inside}{first['msg']}")
