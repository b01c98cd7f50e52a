"""Real processes and the prediction log: several workers write one log, and its end is written."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from {{ cookiecutter.package_name }} import cli

from .prediction_log import log_rows
from .quick import ground_truths
from .servers import failed_start, processes, running, total, until
from .test_workers import (
    end_during_a_request,
    end_under_load,
    ended,
    post_many,
    pytestmark,
    workers,
)

__all__ = ["pytestmark"]


def test_two_workers_share_log_and_feedback(deployment: Path, example: dict[str, Any]) -> None:
    with running(deployment, workers=2) as server:
        both = workers(server)
        answers = post_many(server, example, 60)

        def sample(name: str, **labels: str) -> float:
            return total(server.send("/metrics").text, name, **labels)

        until(lambda: sample("prediction_log_rows_total") == 60)
        assert sample("prediction_log_lost_total") == 0
        assert {row["request_id"] for row in log_rows()} == {
            answer.json["request_id"] for answer in answers
        }

        # feedback finds what the other worker has predicted a moment ago
        for _ in range(4):
            answer = server.send("/v1/predict", example).json
            truth, _ = ground_truths(answer["predictions"][0])
            feedback = {"feedback": [{"request_id": answer["request_id"], "truth": truth}]}
            assert server.send("/v1/feedback", feedback).json["new"] == 1
        until(lambda: sample("feedback_total") == 4)

        # a killed worker is replaced, and the rows stay
        until(lambda: sample("prediction_log_rows_total") == 64)
        os.kill(min(both), signal.SIGKILL)
        until(lambda: min(both) not in processes(server))
        workers(server)
        until(server.ready)
        assert server.send("/v1/predict", example).status == 200
        server.process.send_signal(signal.SIGTERM)
        assert ended(server) == 0
    assert len(log_rows()) == 65


@pytest.mark.parametrize("workers_", [1, 2])
def test_sigterm_under_load_loses_no_row(
    deployment: Path, example: dict[str, Any], workers_: int
) -> None:
    """Rows are written although the log would wait for a minute."""
    with running(deployment, workers=workers_, log_seconds=60) as server:
        answers = end_under_load(server, example)
    answered = {answer.json["request_id"] for answer in answers}
    assert answered <= {row["request_id"] for row in log_rows()}


HANGING = """
import sys, time
from {package}.serving import feedback
from {package}.serving.logs import logger

def hang(*_):
    logger.error("hangs")
    time.sleep(1000)

feedback._store = hang
from {package}.cli import main
sys.exit(main(["serve"]))
"""


def test_feedback_on_a_hanging_database_does_not_keep_the_server_from_its_end(
    deployment: Path, example: dict[str, Any]
) -> None:
    code = HANGING.format(package=cli.__package__)
    with running(deployment, code, drain_seconds=4) as server:
        answer = server.send("/v1/predict", example).json
        one = {"request_id": answer["request_id"]}
        one["truth"] = ground_truths(answer["predictions"][0])[0]
        with ThreadPoolExecutor(12) as callers:
            calls = [
                callers.submit(server.send, "/v1/feedback", {"feedback": [one]}) for _ in range(12)
            ]
            until(lambda: "hangs" in server.log.read_text(encoding="utf-8"))
            assert server.send("/metrics").status == 200
            server.process.send_signal(signal.SIGTERM)
            assert ended(server) == 0
            for call in calls:
                call.exception()
    assert len(log_rows()) == 1


def test_request_in_progress_at_the_end_is_logged(
    deployment: Path, example: dict[str, Any]
) -> None:
    with running(deployment) as server:
        end_during_a_request(server, example)
    assert len(log_rows()) == 1


def test_failed_start_for_an_invalid_database_shows_no_password(deployment: Path) -> None:
    code, lines = failed_start(deployment, database_url="mysql://me:secret@host/log")
    assert code == 2
    (line,) = lines
    assert "$APP_DATABASE_URL: database_url" in line
    assert "secret@" not in line
