"""The prediction log: each answer is in it, and it never costs one."""

import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.load import load_bundle
from {{ cookiecutter.package_name }}.serving import prediction_events
from {{ cookiecutter.package_name }}.store.row import PredictionRow
from {{ cookiecutter.package_name }}.task.contract import Item

from .conftest import Traffic
from .servers import inside, log_rows, sample, started, until


def written(client: TestClient) -> list[dict[str, Any]]:
    """The rows of all that was answered before."""
    assert inside(client).predict.recorder.flush(10)
    return log_rows()


def test_every_answer_has_a_row_that_tells_all_of_it(
    client: TestClient, traffic: Traffic, deployment: Path
) -> None:
    bundle = load_bundle(*folder.champion_path(deployment))
    groups = [traffic.usual[:1], traffic.usual[1:4], traffic.usual[4:9]]
    before, answers = time.time(), []
    for number, items in enumerate(groups):
        headers = {"x-request-id": f"r{number}", "x-caller-key": f"caller {number % 2}"}
        answers.append(client.post("/v1/predict", json={"items": items}, headers=headers).json())
    rows = written(client)
    assert [row["request_id"] for row in rows] == ["r0", "r1", "r2"]
    for row, items, answer in zip(rows, groups, answers, strict=True):
        inputs = bundle.contract.encode([Item.model_validate(item) for item in items])
        watched = bundle.contract.features(inputs)
        found = json.loads(row["features"])
        assert found.keys() == watched.keys()
        for name, values in watched.items():
            agree(found[name], values)
        outcomes = bundle.contract.prediction_stats(bundle.run(inputs))
        assert json.loads(row["outcomes"]).keys() == outcomes.keys()
        for name, values in outcomes.items():
            agree(json.loads(row["outcomes"])[name], values, 1e-4)
        assert json.loads(row["output"]) == answer["predictions"]
        assert json.loads(row["input"]) == items
        assert before <= row["at"] <= time.time()
        assert 0 < row["milliseconds"] < 10_000
        assert row["items"] == len(items)
        assert row["model_version"] == answer["model_version"]
        assert row["variant"] == "champion"
        assert row["test"] is None
        assert re.fullmatch("[0-9a-f]{16}", row["unit"])
    units = [row["unit"] for row in rows]
    assert units[0] == units[2] != units[1], "a caller has one unit"


def agree(found: list[Any], values: np.ndarray, tolerance: float = 1e-5) -> None:
    """Logged values have six digits; what is no number is null."""
    if values.dtype.kind in "USO":
        assert found == values.tolist()
        return
    numbers = [math.nan if value is None else value for value in found]
    np.testing.assert_allclose(numbers, values, rtol=tolerance, atol=tolerance)


def test_the_input_is_what_was_read_of_the_body(
    client: TestClient, example: dict[str, Any]
) -> None:
    forms = [
        ' {"items" :\n ITEMS } \n',
        '{"\\u0069tems": ITEMS}',
        '{"items": [], "items": ITEMS}',
        '{"items": {"[": 1}, "items": ITEMS}',
        '{"items": [], "\\u0069tems": ITEMS}',
    ]
    bodies = [form.replace("ITEMS", json.dumps(example["items"])) for form in forms]
    for body in bodies:
        headers = {"content-type": "application/json"}
        assert client.post("/v1/predict", content=body, headers=headers).status_code == 200
    rows = written(client)
    assert [json.loads(row["input"]) for row in rows] == [example["items"]] * len(bodies)


def test_inputs_are_kept_as_it_was_set(deployment: Path, example: dict[str, Any]) -> None:
    # 6 standard deviations: a false alarm in a billion runs
    for kept, low, high in (("none", 0, 0), ("sampled", 0.5 * 80 - 27, 0.5 * 80 + 27)):
        Path("predictions.db").unlink(missing_ok=True)
        with started(deployment, log_inputs=kept, log_sample=0.5) as client:
            for _ in range(80):
                client.post("/v1/predict", json=example)
            rows = written(client)
            assert len(rows) == 80
            assert low <= sum(row["input"] is not None for row in rows) <= high


def test_without_a_log_it_answers_and_counts(deployment: Path, example: dict[str, Any]) -> None:
    with started(deployment, database_url="none") as client:
        assert client.post("/v1/predict", json=example).status_code == 200
        assert sample(client, "predictions_total") == len(example["items"])
        assert sample(client, "prediction_log_lost_total") == 0
    assert not Path("predictions.db").exists()


def in_the_way(path: Path) -> None:
    """A folder where the file should be."""
    path.mkdir(parents=True)


def under_a_file(path: Path) -> None:
    """A file where the folder should be."""
    path.parent.write_text("")


@pytest.mark.parametrize("hinder", [in_the_way, under_a_file])
def test_a_database_that_is_away_fails_no_prediction_and_gets_all_rows_later(
    deployment: Path,
    example: dict[str, Any],
    tmp_path: Path,
    hinder: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction_events, "RETRY_SECONDS", (0.02,))
    path = tmp_path / "log" / "predictions.db"
    hinder(path)
    with started(deployment, database_url=f"sqlite:///{path}") as client:
        for _ in range(10):
            assert client.post("/v1/predict", json=example).status_code == 200
        until(lambda: sample(client, "prediction_log_errors_total") >= 2)
        assert sample(client, "prediction_log_waiting") == 10
        assert sample(client, "prediction_log_lag_seconds") > 0
        assert sample(client, "prediction_log_rows_total") == 0
        assert client.get("/readyz").status_code == 200
        if path.is_dir():
            path.rmdir()
        else:
            path.parent.unlink()
        until(lambda: sample(client, "prediction_log_rows_total") == 10)
        assert sample(client, "prediction_log_waiting") == 0
        assert sample(client, "prediction_log_lost_total") == 0
        assert client.post("/v1/predict", json=example).status_code == 200
    assert len(log_rows(path)) == 11


@pytest.mark.parametrize("limit", ["log_rows", "log_megabytes"])
def test_rows_beyond_the_limit_are_counted_as_lost(
    deployment: Path,
    example: dict[str, Any],
    tmp_path: Path,
    limit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction_events, "RETRY_SECONDS", (0.02,))
    path = tmp_path / "predictions.db"
    in_the_way(path)
    settings = {"database_url": f"sqlite:///{path}", limit: 5}
    if limit == "log_megabytes":
        monkeypatch.setattr(prediction_events, "_size", lambda row: 2**20)
    with started(deployment, **settings) as client:
        for _ in range(30):
            assert client.post("/v1/predict", json=example).status_code == 200
            assert sample(client, "http_requests_total", status="200", route="/v1/predict")
        until(lambda: sample(client, "prediction_log_errors_total") >= 2)
        lost = sample(client, "prediction_log_lost_total", reason="full")
        waiting = sample(client, "prediction_log_waiting")
        assert 0 < waiting <= 2 * 5, "those that wait, and those that were being written"
        assert lost + waiting == 30
        path.rmdir()
        until(lambda: sample(client, "prediction_log_rows_total") == waiting)
    assert len(log_rows(path)) == waiting


def test_a_row_that_the_database_refuses_is_counted_and_the_others_are_written(
    deployment: Path, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_unit(*columns: Any) -> PredictionRow:
        row = PredictionRow(*columns)
        return row._replace(**{"unit": None}) if row.request_id == "r3" else row

    monkeypatch.setattr(prediction_events, "PredictionRow", without_unit)
    with started(deployment, log_seconds=60) as client:
        for number in range(6):
            client.post("/v1/predict", json=example, headers={"x-request-id": f"r{number}"})
        rows = written(client)
        assert [one["request_id"] for one in rows] == ["r0", "r1", "r2", "r4", "r5"]
        assert sample(client, "prediction_log_lost_total", reason="refused") == 1
        assert sample(client, "prediction_log_lost_total") == 1
        assert sample(client, "prediction_log_rows_total") == 5


def test_answers_that_cannot_be_counted_are_lost_aloud_and_the_next_ones_are_not(
    deployment: Path, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    with started(deployment, log_seconds=60) as client:
        with monkeypatch.context() as patch:
            patch.setattr(prediction_events.PredictionEvents, "_enqueue", fail)
            assert client.post("/v1/predict", json=example).status_code == 200
            assert sample(client, "prediction_log_lost_total", reason="broken") == 1
        assert client.post("/v1/predict", json=example).status_code == 200
        assert len(written(client)) == 1
        assert sample(client, "prediction_log_lost_total") == 1


def test_a_request_id_that_comes_again_is_answered_and_logged_once(
    client: TestClient, example: dict[str, Any]
) -> None:
    for _ in range(3):
        answer = client.post("/v1/predict", json=example, headers={"x-request-id": "same"})
        assert answer.status_code == 200
    assert len(written(client)) == 1
    assert sample(client, "prediction_log_lost_total") == 0


def test_the_end_of_the_server_writes_what_waits(deployment: Path, example: dict[str, Any]) -> None:
    with started(deployment, log_seconds=60) as client:
        for _ in range(7):
            client.post("/v1/predict", json=example)
        assert not Path("predictions.db").exists()
    assert len(log_rows()) == 7


def test_what_cannot_be_written_in_the_end_is_told(
    deployment: Path, example: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way(tmp_path / "log.db")
    url = f"sqlite:///{tmp_path / 'log.db'}"
    with started(deployment, database_url=url, drain_seconds=1) as client:
        client.post("/v1/predict", json=example)
        metrics = inside(client).predict.metrics
    assert metrics.log_lost("stopped")._value.get() == 1
    assert "prediction log lost rows" in [record.getMessage() for record in caplog.records]


def test_metrics_are_what_was_asked(client: TestClient, traffic: Traffic) -> None:
    version = client.get("/readyz").json()["model_version"]
    groups = [traffic.usual[:1], traffic.usual[1:3], traffic.usual[3:10]]
    answers = [client.post("/v1/predict", json={"items": items}) for items in groups]
    assert {answer.status_code for answer in answers} == {200}
    own = {"version": version, "variant": "champion"}
    route = {"route": "/v1/predict", **own}
    assert sample(client, "http_requests_total", status="200", **route) == 3
    assert sample(client, "http_request_seconds_count", **route) == 3
    assert sample(client, "http_request_seconds_bucket", le="+Inf", **route) == 3
    sum_ = sample(client, "http_request_seconds_sum", **route)
    assert 0 < sum_ < 30
    assert sample(client, "predictions_total", **own) == 10
    text = client.get("/metrics").text
    outcomes = set(re.findall(r'predicted_total\{.*?outcome="([^"]+)"', text))
    assert outcomes
    for outcome in outcomes:
        assert sample(client, "predicted_total", outcome=outcome, **own) == 10
    # in the same buckets as if each had been observed by itself
    milliseconds = [row["milliseconds"] for row in written(client)]
    for bound in (0.001, 0.01, 0.1, 1.0):
        wanted = sum(one <= bound * 1000 for one in milliseconds)
        assert sample(client, "http_request_seconds_bucket", le=f"{bound}", **route) == wanted


def test_labels_of_metrics_are_few(client: TestClient, traffic: Traffic) -> None:
    for start in range(0, len(traffic.shifted[:200]), 50):
        client.post("/v1/predict", json={"items": traffic.shifted[start : start + 50]})
    text = client.get("/metrics").text
    buckets = set(re.findall(r"predicted_total\{[^}]*\}", text))
    outcomes = set(re.findall(r'predicted_total\{.*?outcome="([^"]+)"', text))
    assert len(buckets) <= (prediction_events.MAX_BUCKETS + 2) * len(outcomes)


def travel(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock, that of the calendar, ahead by so many seconds."""
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    def jump(seconds: float) -> None:
        ahead[0] = seconds

    return jump


@pytest.mark.parametrize(("days", "log_days"), [(-400, 500), (400, 365)])
def test_a_clock_that_jumps_costs_no_answer_and_no_row(
    deployment: Path,
    example: dict[str, Any],
    days: int,
    log_days: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jump = travel(monkeypatch)
    with started(deployment, log_days=log_days) as client:
        for number, seconds in enumerate((0, days * 86400, 0)):
            jump(seconds)
            for _ in range(3):
                assert client.post("/v1/predict", json=example).status_code == 200
            assert written(client)
            inside(client).predict.recorder._prune()
            assert len(written(client)) == 3 * (number + 1)
            assert 0 <= sample(client, "prediction_log_lag_seconds") < 60
        assert sample(client, "prediction_log_errors_total") == 0


def test_the_server_forgets_what_is_old(
    deployment: Path, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jump = travel(monkeypatch)
    jump(-40 * 86400)
    with started(deployment, log_days=30) as client:
        client.post("/v1/predict", json=example, headers={"x-request-id": "old"})
    jump(0)
    monkeypatch.setattr(prediction_events, "FIRST_PRUNE_SECONDS", 0)
    with started(deployment, log_days=30) as client:
        client.post("/v1/predict", json=example, headers={"x-request-id": "new"})
        until(lambda: [row["request_id"] for row in written(client)] == ["new"])
