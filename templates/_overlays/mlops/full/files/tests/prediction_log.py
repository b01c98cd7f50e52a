"""What a server under test wrote to its prediction log, and a collector for it."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.serving.collector import Collector
from {{ cookiecutter.package_name }}.serving.feedback_socket import SOCKET
from {{ cookiecutter.package_name }}.serving.prediction_log import PredictionLog

from .servers import inside, until


def observer(client: TestClient) -> PredictionLog:
    """The part of the server behind `client` that keeps the log."""
    return cast(PredictionLog, inside(client).predict.observer)


@contextmanager
def collecting(client: TestClient) -> Iterator[Collector]:
    """Run a collector beside the server behind `client`; it measures only when told to."""
    collector, ended = Collector(observer(client).settings), threading.Event()
    thread = threading.Thread(target=collector.run, args=[ended, False])
    thread.start()
    try:
        until((collector.folder / SOCKET).exists)
        yield collector
    finally:
        ended.set()
        thread.join(30)
        assert not thread.is_alive()


def written(client: TestClient) -> list[dict[str, Any]]:
    """The rows of the log, after all that was predicted before has been written."""
    observer(client).flush()
    collector = Collector(observer(client).settings)
    collector.collect()
    collector.close()
    return log_rows()


def log_rows(path: Path | str = "predictions.db") -> list[dict[str, Any]]:
    """All rows of a log, in the order in which they were written."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM predictions ORDER BY id")
        return [dict(row) for row in rows]
