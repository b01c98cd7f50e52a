"""The schema of feedback, and files of it for the command feedback.

Free of the database's library: the server imports it.
"""

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, Field, ValidationError

from ..config import UserError

KEYS = ("request_id", "item")  # columns that are no field of the ground truth
GroundTruthT = TypeVar("GroundTruthT", bound=BaseModel)


class Feedback(BaseModel, Generic[GroundTruthT], extra="forbid"):
    """The ground truth of one item of an earlier request; `Feedback[GroundTruth]` is a task's."""

    request_id: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$", description="the request's id, as its response named it"
    )
    item: int = Field(default=0, ge=0, lt=2**31, description="which of the request's items, from 0")
    truth: GroundTruthT = Field(description="the ground truth: what turned out to be right")


class FeedbackLine(NamedTuple):
    """Feedback, and the row of the file where it ends."""

    row: int
    feedback: Feedback[Any]


def read_feedback_file(path: Path, schema: type[Feedback[Any]]) -> list[FeedbackLine]:
    """Read CSV or, if the name ends in `.jsonl`, JSON lines.

    `schema` is `Feedback` of the task's ground truth. Raises UserError naming row and column.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # line ends inside cells stay as they are
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    is_json = path.suffix == ".jsonl"
    lines = []
    for row, content in enumerate(text.split("\n"), 1) if is_json else _read_csv(path, text):
        try:
            if isinstance(content, dict):
                lines.append(FeedbackLine(row, _parse_cells(content, schema)))
            elif content.strip():
                lines.append(FeedbackLine(row, schema.model_validate_json(content)))
        except ValidationError as error:
            first = error.errors()[0]
            column, *inside = [str(key) for key in first["loc"] if key != "truth"] or [""]
            place = f"row {row}, column {column!r}" if column else f"row {row}"
            where = f"{'.'.join(inside)}: " if inside else ""
            raise UserError(f"{path}: {place}: {where}{first['msg']}") from None
    if not lines:
        raise UserError(f"{path}: holds no feedback")
    return lines


def _read_csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the filled cells of each row."""
    csv.field_size_limit(2**31 - 1)  # characters of a cell; 128 Ki by default
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if header.count("request_id") != 1:
            raise UserError(f"{path}: row 1: needs one column 'request_id', found {header}")
        for cells in reader:
            if cells and len(cells) != len(header):
                counts = f"{len(cells)} cells, the header has {len(header)}"
                raise UserError(f"{path}: row {reader.line_num}: has {counts}")
            if cells:
                pairs = zip(header, cells, strict=True)
                yield reader.line_num, {name: cell for name, cell in pairs if cell}
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
