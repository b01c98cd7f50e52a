"""Write files whole or not at all; rewrite the marked section of a page."""

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .config import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")


class Document(BaseModel):
    """A JSON document, or a part of one. Older code may read it, so unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # not that of the temporary file, or none at all
        raise
    finally:
        with suppress(OSError):  # the folder itself may be what cannot be written
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line endings."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode()))


def replace_section(path: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Rewrite a page's section between two marker lines. Raises UserError without them."""
    before, after = split_around_section(path, begin, end)
    write_text(path, "\n".join([before + begin, "", *lines, "", end + after]))


def split_around_section(path: Path, begin: str, end: str) -> tuple[str, str]:
    """Return the text before and after a page's marked section. Raises UserError without markers.

    What follows the comma in a marker is for people; older pages have other words there.
    """
    text = path.read_text(encoding="utf-8")
    name = re.escape(begin.partition(",")[0])
    text = re.sub(rf"{name},[^\n]*?-->", begin, text)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UserError(
            f"{path}: must hold these two lines once, in this order: {begin} and {end}; "
            "results go between them"
        )
    return text.split(begin)[0], text.split(end)[1]


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG on an opaque white card; the same figure gives the same bytes."""
    style: Any = {"format": "png", "dpi": 144, "facecolor": "white", "metadata": {"Software": None}}
    layout: Any = figure.get_layout_engine()
    if layout is not None:
        layout.set(w_pad=0.12, h_pad=0.12)  # inches, from the edge where dark pages begin
    write_atomically(path, lambda temporary: figure.savefig(temporary, **style))


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON; what JSON cannot hold is written as text."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises UserError naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None


def read_document(path: Path, kind: type[T]) -> T:
    """Read a JSON file as this type. Raises UserError naming the file and the invalid key."""
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: is not a valid {path.name}: {first_error(error)}") from None


def first_error(error: ValidationError) -> str:
    """Describe the first error of a validation in one line: `path.to.key: reason`."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
