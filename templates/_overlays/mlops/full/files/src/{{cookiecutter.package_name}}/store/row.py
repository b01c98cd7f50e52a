"""A row of the prediction log."""

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
    client_id: str | None = None
    asker: str = ""
    caller: str | None = None
    trace_id: str | None = None
