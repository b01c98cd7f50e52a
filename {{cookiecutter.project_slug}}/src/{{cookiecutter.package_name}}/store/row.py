"""A row of the prediction log, for those who make rows; without the database's library."""

from typing import NamedTuple


class PredictionRow(NamedTuple):
    """A row of `predictions`; see there."""

    request_id: str
    at: float
    model_version: str
    variant: str
    test: str | None
    unit: str
    items: int
    milliseconds: float
    features: str
    outcomes: str
    output: str
    input: str | None
