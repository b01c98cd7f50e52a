"""What turned out to be right: its form, and files of it for the verb feedback."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import UserError
from ..task.contract import GroundTruth

OWN = ("request_id", "item")  # columns that are no field of the truth


class Feedback(BaseModel):
    """The truth about one item of a request that was answered before."""

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(
        min_length=1, max_length=64, description="the request's id, as its answer told it"
    )
    item: int = Field(default=0, ge=0, lt=2**31, description="which of the request's items, from 0")
    truth: GroundTruth = Field(description="what turned out to be right")


class FeedbackLine(NamedTuple):
    """A truth, and the row of the file that it ends in."""

    row: int
    feedback: Feedback


def read_feedback_file(path: Path) -> list[FeedbackLine]:
    """All truths of a file; UserError naming row and column."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    lines = list(_json(path, text) if path.suffix == ".jsonl" else _csv(path, text))
    if not lines:
        raise UserError(f"{path}: holds no feedback")
    return lines


def _json(path: Path, text: str) -> Iterator[FeedbackLine]:
    for row, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield FeedbackLine(row, Feedback.model_validate_json(line))
            except ValidationError as error:
                raise _refused(path, row, error) from None


def _csv(path: Path, text: str) -> Iterator[FeedbackLine]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader, [])
        if header.count("request_id") != 1:
            raise UserError(f"{path}: row 1: needs one column 'request_id', found {header}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                found = f"{len(cells)} cells, the header has {len(header)}"
                raise UserError(f"{path}: row {reader.line_num}: has {found}")
            filled = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            try:
                yield FeedbackLine(reader.line_num, _feedback(filled))
            except ValidationError as error:
                raise _refused(path, reader.line_num, error) from None
    except csv.Error as error:
        raise UserError(f"{path}: row {reader.line_num}: is not CSV: {error}") from None


def _feedback(cells: dict[str, str]) -> Feedback:
    """A cell is taken as the text that it is; where that does not fit, as JSON."""
    own: dict[str, Any] = {name: cell for name, cell in cells.items() if name in OWN}
    truth: dict[str, Any] = {name: cell for name, cell in cells.items() if name not in OWN}
    try:
        return Feedback.model_validate({**own, "truth": truth})
    except ValidationError as error:
        for detail in error.errors():
            if detail["loc"][0] == "truth" and (name := str(detail["loc"][1])) in truth:
                truth[name] = _parsed(cells[name])
    return Feedback.model_validate({**own, "truth": truth})


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _refused(path: Path, row: int, error: ValidationError) -> UserError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "truth"]
    column = f", column {place[0]!r}" if place else ""
    inside = f"{'.'.join(place[1:])}: " if place[1:] else ""
    return UserError(f"{path}: row {row}{column}: {inside}{first['msg']}")
