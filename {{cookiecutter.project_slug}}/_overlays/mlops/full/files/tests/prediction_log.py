"""What a server under test wrote to its prediction log."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.serving.prediction_events import PredictionEvents

from .servers import inside


def observer(client: TestClient) -> PredictionEvents:
    """The part of the server behind `client` that keeps the log."""
    return cast(PredictionEvents, inside(client).predict.observer)


def written(client: TestClient) -> list[dict[str, Any]]:
    """The rows of the log, after all that was predicted before has been written."""
    assert observer(client).flush(10)
    return log_rows()


def log_rows(path: Path | str = "predictions.db") -> list[dict[str, Any]]:
    """All rows of a log, in the order in which they were written."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM predictions ORDER BY id")
        return [dict(row) for row in rows]
