"""Real processes and the prediction log: several workers write one log, and its end is written."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from {{ cookiecutter.package_name }}.serving import app
from {{ cookiecutter.package_name }}.store.spool import waiting

from .prediction_log import log_rows
from .quick import ground_truths
from .servers import Answer, Server, failed_start, processes, running, total, until
from .test_operations import services
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


def test_feedback_finds_what_another_server_of_the_same_database_predicted(
    deployment: Path, example: dict[str, Any], tmp_path: Path
) -> None:
    """As replicas in Kubernetes, each with a spool of its own."""
    with (
        running(deployment, spool_dir=tmp_path / "one") as one,
        running(deployment, spool_dir=tmp_path / "other") as other,
    ):
        for server in (one, other):
            until(lambda server=server: total(server.send("/metrics").text, "collector_up") == 1)
        for asked, told in ((one, other), (other, one)):
            answer = asked.send("/v1/predict", example).json
            truth, _ = ground_truths(answer["predictions"][0])
            feedback = {"feedback": [{"request_id": answer["request_id"], "truth": truth}]}
            assert told.send("/v1/feedback", feedback).json["new"] == 1


def test_server_that_replaces_another_takes_over_its_spool(
    deployment: Path, example: dict[str, Any]
) -> None:
    """As a rolling update on one machine, where both mount the same volume."""
    with running(deployment) as old, running(deployment) as new:
        statuses = [server.send("/v1/predict", example).status for server in (old, new) * 5]
        old.process.send_signal(signal.SIGTERM)
        assert ended(old) == 0
        statuses += [new.send("/v1/predict", example).status for _ in range(5)]
        assert statuses == [200] * 15
        until(lambda: len(log_rows_so_far()) == 15)
        new.process.send_signal(signal.SIGTERM)
        assert ended(new) == 0


@pytest.mark.parametrize("workers_", [1, 2])
def test_sigterm_under_load_loses_no_row(
    deployment: Path, example: dict[str, Any], workers_: int
) -> None:
    """Rows are written although the log would wait for a minute."""
    with running(deployment, workers=workers_, log_seconds=60) as server:
        until(lambda: collector(server))  # on a busy machine it starts later than the server
        answers = end_under_load(server, example)
    answered = {answer.json["request_id"] for answer in answers}
    assert answered <= {row["request_id"] for row in log_rows()}


def test_request_in_progress_at_the_end_is_logged(
    deployment: Path, example: dict[str, Any]
) -> None:
    with running(deployment) as server:
        end_during_a_request(server, example)
    assert len(log_rows()) == 1


def test_killed_collector_is_started_again_and_writes_every_row_once(
    deployment: Path, example: dict[str, Any]
) -> None:
    with running(deployment) as server:
        answers = [server.send("/v1/predict", example)]
        for _ in range(3):
            answers += kill_collector(server, example, len(answers))
        assert {answer.status for answer in answers} == {200}
        server.process.send_signal(signal.SIGTERM)
        assert ended(server) == 0
    ids = [row["request_id"] for row in log_rows()]
    assert sorted(ids) == sorted(answer.headers["x-prediction-id"] for answer in answers)


def kill_collector(server: Server, example: dict[str, Any], rows: int) -> list[Answer]:
    """Kill the collector once it has written `rows`; return answers from before and after."""
    before = until(lambda: collector(server)) or 0
    until(lambda: len(log_rows_so_far()) == rows)
    answers = [server.send("/v1/predict", example) for _ in range(5)]
    os.kill(before, signal.SIGKILL)
    answers += [server.send("/v1/predict", example) for _ in range(5)]
    until(lambda: collector(server) not in (None, before))
    return answers


def test_collector_of_a_killed_server_writes_what_is_there_and_ends(
    deployment: Path, example: dict[str, Any]
) -> None:
    with running(deployment) as server:
        until(lambda: collector(server))
        server.send("/v1/predict", example)
        assert server.send("/metrics").status == 200  # everything is in the spool
        server.process.kill()
        until(lambda: not processes(server))
    assert len(log_rows()) == 1


def collector(server: Server) -> int | None:
    """The id of the server's collector, once it reads the spool."""
    try:
        status = json.loads(Path("predictions.db.spool/collector.json").read_bytes())
    except (OSError, ValueError):
        return None
    return status["pid"] if status["pid"] in processes(server) else None


def log_rows_so_far() -> list[dict[str, Any]]:
    """The rows of the log; none before the collector has made its tables."""
    try:
        return log_rows()
    except sqlite3.OperationalError:
        return []


def test_server_imports_no_database_library(deployment: Path, example: dict[str, Any]) -> None:
    script = (
        "import json, sys\n"
        "from fastapi.testclient import TestClient\n"
        f"from {app.__name__} import from_environment\n"
        "with TestClient(from_environment(), 'http://127.0.0.1') as client:\n"
        "    assert client.post('/v1/predict', json=json.loads(sys.argv[1])).status_code == 200\n"
        "    assert client.get('/metrics').status_code == 200\n"
        "print({'sqlalchemy', 'alembic', 'psycopg'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script, json.dumps(example)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_server_ends_in_its_drain_while_the_database_is_frozen(
    deployment: Path, example: dict[str, Any]
) -> None:
    try:
        database = services.Postgres()
    except services.Missing as missing:
        pytest.skip(str(missing))
    with database:
        with running(deployment, database_url=database.url, drain_seconds=2) as server:
            server.send("/v1/predict", example)
            until(lambda: total(server.send("/metrics").text, "prediction_log_rows_total") == 1)
            frozen = database.processes()
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            try:
                answer = server.send("/v1/predict", example)
                truth, _ = ground_truths(answer.json["predictions"][0])
                feedback = {"feedback": [{"request_id": answer.json["request_id"], "truth": truth}]}
                assert server.send("/v1/feedback", feedback).status == 503
                assert server.send("/metrics").status == 200
                assert server.send("/v1/predict", example).status == 200
                server.process.send_signal(signal.SIGTERM)
                assert ended(server) == 0
            finally:
                for pid in frozen:
                    os.kill(pid, signal.SIGCONT)
        assert waiting(Path("spool/127.0.0.1-postgres")).rows == 2
        messages = [line["message"] for line in server.lines()]
        assert any("wait in the spool" in message for message in messages)
        with running(deployment, database_url=database.url) as server:  # the next start
            until(lambda: total(server.send("/metrics").text, "prediction_log_rows_total") == 2)


def test_failed_start_for_an_invalid_database_shows_no_password(deployment: Path) -> None:
    code, lines = failed_start(deployment, database_url="mysql://me:secret@host/log")
    assert code == 2
    (line,) = lines
    assert "$APP_DATABASE_URL: database_url" in line
    assert "secret@" not in line
