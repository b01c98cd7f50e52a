"""Markdown in which names from the data, of any characters, are shown as they are."""

import re
from collections.abc import Sequence

SPECIAL = re.compile(r"[\\`*\[\]~$]|(?<!\w)_|_(?!\w)")
ENTITY = re.compile(r"&(?=#?\w+;)")


class Markup(str):
    """A table's cell that is Markdown already; other cells are text."""


def escape(text: str) -> str:
    """Return Markdown of one line that shows this text."""
    line = SPECIAL.sub(r"\\\g<0>", ENTITY.sub("&amp;", " ".join(text.split())))
    return line.replace("<", "&lt;")  # not a backslash: the text may be a page's marker


def code(text: str) -> Markup:
    """Return the text as code, also if it has backticks itself."""
    line = " ".join(text.split())
    ticks = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    space = " " if not line or "`" in (line[0], line[-1]) else ""
    return Markup(f"{ticks}{space}{line}{space}{ticks}")


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as the lines of a Markdown table; columns line up in the source too."""
    rows = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _cell(cell: str) -> str:
    return (cell if isinstance(cell, Markup) else escape(cell)).replace("|", r"\|")
