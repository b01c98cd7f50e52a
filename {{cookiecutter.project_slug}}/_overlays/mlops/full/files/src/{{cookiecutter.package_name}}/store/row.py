"""A row of the prediction log, free of the database's library: the server makes rows all the time
and imports that library late."""

from typing import NamedTuple


class PredictionRow(NamedTuple):
    """A row of the table `predictions`; the columns are explained in `tables.py`."""

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
