"""Requests and answers of the peers: the same JSON as the project's, checked by pydantic."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field

Pixel = Annotated[float, Field(ge=0, le=1)]
Row = Annotated[list[Pixel], Field(min_length=8, max_length=8)]


class Item(BaseModel):
    pixels: list[Row] = Field(min_length=8, max_length=8)


class Body(BaseModel):
    items: list[Item] = Field(min_length=1, max_length=256)


class Prediction(BaseModel):
    label: str
    probability: float
    probabilities: dict[str, float]


class Answer(BaseModel):
    predictions: list[Prediction]


def predictions(labels: Sequence[str], rows: list[list[float]]) -> list[Prediction]:
    """Probabilities to answers."""
    found = []
    for row in rows:
        probability, label = max(zip(row, labels, strict=True))
        shares = dict(zip(labels, row, strict=True))
        found.append(Prediction(label=label, probability=probability, probabilities=shares))
    return found
