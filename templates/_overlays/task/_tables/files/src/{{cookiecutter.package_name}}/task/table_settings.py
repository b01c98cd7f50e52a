"""The settings `data.table`: how files of tables are written. Shared by the tasks that read any."""

import codecs
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ..settings import Section

EPOCHS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _tab(mark: Any) -> Any:
    """Accept what a tab is called where none can be typed."""
    return "\t" if mark in ("tab", "\\t") else mark


Mark = Annotated[str, BeforeValidator(_tab), Field(min_length=1, max_length=1)]


class TableSettings(Section):
    """How a file of rows and columns is written."""

    format: Literal["auto", "csv", "json", "jsonl", "parquet"] = Field(
        default="auto", description="auto: by the file's name and first bytes; all may be gzipped"
    )
    separator: Mark | None = Field(
        default=None, description="CSV: between columns, `tab` too; by default what fits every row"
    )
    quote: Mark | None = Field(
        default='"', description="CSV: around cells with separators; null: no such mark"
    )
    decimal: Mark = Field(default=".", description="CSV: decimal sign, `,` in much of Europe")
    thousands: Mark | None = Field(default=None, description="CSV: sign between groups of digits")
    encoding: str = Field(default="utf-8", description="of CSV and JSON, for example cp1252")
    skip: int = Field(default=0, ge=0, description="CSV: lines before the header to leave out")
    header: list[str] = Field(default=[], description="CSV: column names if the file has none")
    times: str = Field(
        default="auto",
        min_length=1,
        description="auto: ISO 8601, or what alone fits every row; a format as of strptime, for "
        "example %d.%m.%Y; since 1970: s, ms, us, ns",
    )
    missing: list[str] = Field(
        default=["NA", "N/A", "NaN", "nan", "NULL", "null", "None"],
        description="what stands for a missing number, besides an empty cell",
    )

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            "".encode(name)
            return codecs.lookup(name).name
        except LookupError:
            raise ValueError("is not an encoding of text, use one like utf-8 or cp1252") from None

    @field_validator("times")
    @classmethod
    def _known_times(cls, times: str) -> str:
        if times not in ("auto", *EPOCHS):
            if "%" not in times:
                raise ValueError(f"must be auto, {', '.join(EPOCHS)} or a format like %d.%m.%Y")
            datetime.strptime(datetime(2000, 1, 1).strftime(times), times)
        return times

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}")
        return self


def shown(value: object) -> str:
    """Write a value for a message, shortened."""
    text = str(value)
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def with_old_keys(raw: Any, **keys: str) -> Any:
    """Move settings of a section `data` to where they are in `data.table`, for files from before.

    `keys` maps an old key to the new one.
    """
    if not isinstance(raw, dict) or not keys.keys() & raw.keys():
        return raw
    table = raw.get("table") or {}
    moved = {new: raw[old] for old, new in keys.items() if old in raw}
    fields = table if isinstance(table, dict) else table.model_dump(exclude_unset=True)
    rest = {key: value for key, value in raw.items() if key not in keys}
    return {**rest, "table": {**moved, **fields}}
