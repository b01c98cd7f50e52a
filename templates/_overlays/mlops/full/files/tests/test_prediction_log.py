"""The prediction log: every prediction is in it, and no request fails by it."""

import json
import math
import queue
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.load import load_bundle
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.interfaces import LabelledItem
from {{ cookiecutter.package_name }}.serving import (
    collector,
    collector_process,
    columns,
    prediction_log,
)
from {{ cookiecutter.package_name }}.serving.collector import Collector
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings
from {{ cookiecutter.package_name }}.store import spool
from {{ cookiecutter.package_name }}.store.write import PredictionRow
from {{ cookiecutter.package_name }}.task.contract import Item
from {{ cookiecutter.package_name }}.task.settings import Settings

from .conftest import CONFIG
from .labelled import pairs
from .prediction_log import collecting, log_rows, observer, written
from .servers import inside, sample, started, total, until

__all__ = ["pairs"]  # a fixture


@pytest.mark.parametrize("password", ["postgres", "Change-me", ""])
def test_production_refuses_well_known_database_passwords(password: str) -> None:
    setting = f"database_url=postgresql://me:{password}@host/log"
    load_settings(ServerSettings, None, [setting])
    with pytest.raises(UserError) as raised:
        load_settings(ServerSettings, None, ["environment=production", setting])
    (line,) = str(raised.value).splitlines()
    assert line.startswith("command line: database_url: ")
    assert f"me:{password}" not in line
    good = "database_url=postgresql://me:as-random@host/log"
    load_settings(ServerSettings, None, ["environment=production", good])


def test_error_of_an_invalid_database_url_shows_no_password() -> None:
    with pytest.raises(UserError) as raised:
        load_settings(ServerSettings, None, ["database_url=mysql://me:hunter2@host/log"])
    assert "hunter2" not in str(raised.value)


def test_database_has_one_variable_for_server_and_commands() -> None:
    env = {"APP_DATABASE_URL": "sqlite:///1.db"}
    assert load_settings(Settings, CONFIG, [], env).live.database == "sqlite:///1.db"
    assert load_settings(ServerSettings, None, [], env).database_url == "sqlite:///1.db"


def test_every_prediction_has_a_complete_row(
    client: TestClient, request_items: list[dict[str, Any]], deployment: Path
) -> None:
    bundle = load_bundle(*folder.champion_path(deployment))
    groups = [request_items[:1], request_items[1:4], request_items[4:9]]
    before, answers, prediction_ids = time.time(), [], []
    for number, items in enumerate(groups):
        headers = {"x-request-id": f"r{number}", "x-caller-key": f"caller {number % 2}"}
        if number:
            headers["traceparent"] = f"00-{number:032}-00f067aa0ba902b7-01"
        answer = client.post("/v1/predict", json={"items": items}, headers=headers)
        prediction_ids.append(answer.headers["x-prediction-id"])
        answers.append(answer.json())
    rows = written(client)
    assert [row["client_id"] for row in rows] == ["r0", "r1", "r2"]
    assert [row["request_id"] for row in rows] == prediction_ids
    assert len(set(prediction_ids)) == 3
    assert [row["trace_id"] for row in rows] == [None, f"{1:032}", f"{2:032}"]
    for row, items, answer in zip(rows, groups, answers, strict=True):
        inputs = bundle.contract.encode([Item.model_validate(item) for item in items])
        features = bundle.contract.features(inputs)
        stats = bundle.contract.prediction_stats(bundle.run(inputs))
        for column, expected, tolerance in (
            ("features", features, 1e-5),
            ("outcomes", stats, 1e-4),
        ):
            logged = json.loads(row[column])
            assert logged.keys() == expected.keys()
            for name, values in expected.items():
                assert_close(logged[name], values, tolerance)
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


def assert_close(logged: list[Any], values: np.ndarray, tolerance: float) -> None:
    """Compare values with logged ones, which have six digits and null for "not a number"."""
    if values.dtype.kind in "USO":
        assert logged == values.tolist()
        return
    numbers = [math.nan if value is None else value for value in logged]
    np.testing.assert_allclose(numbers, values, rtol=tolerance, atol=tolerance)


def test_logged_input_is_the_items_as_parsed(client: TestClient, example: dict[str, Any]) -> None:
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


def test_inputs_are_sampled_as_configured(deployment: Path, example: dict[str, Any]) -> None:
    # 6 standard deviations: a false alarm in a billion runs
    for kept, low, high in (("none", 0, 0), ("sampled", 0.5 * 80 - 27, 0.5 * 80 + 27)):
        Path("predictions.db").unlink(missing_ok=True)
        with started(deployment, log_inputs=kept, log_sample=0.5) as client:
            for _ in range(80):
                client.post("/v1/predict", json=example)
            rows = written(client)
            assert len(rows) == 80
            assert low <= sum(row["input"] is not None for row in rows) <= high


def test_without_a_log_predictions_are_answered_and_counted(
    deployment: Path, example: dict[str, Any]
) -> None:
    with started(deployment, database_url="none") as client:
        assert client.post("/v1/predict", json=example).status_code == 200
        assert sample(client, "predictions_total") == len(example["items"])
        assert sample(client, "prediction_log_lost_total") == 0
    assert not Path("predictions.db").exists()


def folder_in_the_way(path: Path) -> None:
    """Put a folder where the file should be."""
    path.mkdir(parents=True)


def file_in_the_way(path: Path) -> None:
    """Put a file where the folder should be."""
    path.parent.write_text("")


@pytest.mark.parametrize("block", [folder_in_the_way, file_in_the_way])
def test_unavailable_database_fails_no_prediction_and_gets_all_rows_later(
    deployment: Path,
    example: dict[str, Any],
    tmp_path: Path,
    block: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(collector, "RETRY_SECONDS", (0.02,))
    caplog.set_level("INFO", "serving")
    path = tmp_path / "log" / "predictions.db"
    block(path)
    settings = {"database_url": f"sqlite:///{path}", "spool_dir": tmp_path / "spool"}
    with started(deployment, **settings) as client, collecting(client):
        for _ in range(10):
            assert client.post("/v1/predict", json=example).status_code == 200
        until(lambda: sample(client, "prediction_log_errors_total") >= 2)
        assert sample(client, "prediction_log_waiting") == 10
        until(lambda: sample(client, "prediction_log_lag_seconds") > 0)
        assert sample(client, "prediction_log_rows_total") == 0
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert str(path.parent) in ready.json()["reason"]
        if path.is_dir():
            path.rmdir()
        else:
            path.parent.unlink()
        until(lambda: sample(client, "prediction_log_rows_total") == 10)
        assert sample(client, "prediction_log_waiting") == 0
        assert sample(client, "prediction_log_lag_seconds") == 0
        assert sample(client, "prediction_log_lost_total") == 0
        until(lambda: client.get("/readyz").json()["reason"] is None)
        assert client.post("/v1/predict", json=example).status_code == 200
        until(lambda: sample(client, "prediction_log_rows_total") == 11)
    assert len(log_rows(path)) == 11
    messages = [record.getMessage() for record in caplog.records]
    assert "the prediction log is written again" in messages


def test_rows_beyond_the_limit_of_the_spool_are_counted_as_lost(
    deployment: Path, example: dict[str, Any]
) -> None:
    with started(deployment, log_seconds=60) as client:
        client.post("/v1/predict", json=example)
        size = sample(client, "prediction_log_waiting_bytes")  # of one chunk
        observer(client).spool.max_bytes = round(3.5 * size)
        lost = waiting = 0.0
        for number in range(2, 11):
            assert client.post("/v1/predict", json=example).status_code == 200
            lost = sample(client, "prediction_log_lost_total", reason="full")
            waiting = sample(client, "prediction_log_waiting")
            assert lost + waiting == number
        assert lost > 0
        assert "the most that may wait" in client.get("/readyz").json()["reason"]
        assert len(written(client)) == waiting
        client.post("/v1/predict", json=example)
        assert len(written(client)) == waiting + 1
        assert client.get("/readyz").json()["reason"] is None


def test_unwritable_spool_keeps_rows_in_memory_until_it_can_be_written(
    deployment: Path, example: dict[str, Any], tmp_path: Path
) -> None:
    place = tmp_path / "spool"
    place.write_text("a file where the folder should be")
    with started(deployment, spool_dir=place, log_seconds=60) as client:
        for number in range(1, 4):
            assert client.post("/v1/predict", json=example).status_code == 200
            assert sample(client, "prediction_log_waiting") == number
        assert sample(client, "prediction_log_lost_total") == 0
        assert str(place) in client.get("/readyz").json()["reason"]
        place.unlink()
        assert len(written(client)) == 3


def test_rows_that_the_spool_never_took_are_counted_as_lost_at_the_end(
    deployment: Path,
    example: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = tmp_path / "spool"
    place.write_text("a file where the folder should be")
    with started(deployment, spool_dir=place) as client:
        client.post("/v1/predict", json=example)
        metrics = inside(client).predict.metrics
    text = metrics.render().decode()
    assert total(text, "prediction_log_lost_total", reason="stopped") == 1
    assert "prediction log lost rows" in [record.getMessage() for record in caplog.records]


def test_rejected_row_is_counted_and_the_others_are_written(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of = collector.rows_of

    def without_unit(chunk: spool.Chunk) -> list[PredictionRow]:
        fields: dict[str, Any] = {"unit": None}
        return [row._replace(**fields) if row.client_id == "r3" else row for row in rows_of(chunk)]

    monkeypatch.setattr(collector, "rows_of", without_unit)
    for number in range(6):
        client.post("/v1/predict", json=example, headers={"x-request-id": f"r{number}"})
    with collecting(client):
        until(lambda: sample(client, "prediction_log_rows_total") == 5)
        assert sample(client, "prediction_log_refused_total") == 1
    assert [one["client_id"] for one in log_rows()] == ["r0", "r1", "r2", "r4", "r5"]


def test_predictions_that_cannot_be_counted_are_lost_and_counted(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(prediction_log.PredictionLog, "_count", fail)
        assert client.post("/v1/predict", json=example).status_code == 200
        until(lambda: sample(client, "prediction_log_lost_total", reason="broken") == 1)
    assert client.post("/v1/predict", json=example).status_code == 200
    assert len(written(client)) == 1
    assert sample(client, "prediction_log_lost_total") == 1


def test_repeated_request_id_makes_a_row_each_time(
    client: TestClient, example: dict[str, Any]
) -> None:
    for _ in range(3):
        answer = client.post("/v1/predict", json=example, headers={"x-request-id": "same"})
        assert answer.status_code == 200
    rows = written(client)
    assert [row["client_id"] for row in rows] == ["same"] * 3
    assert len({row["request_id"] for row in rows}) == 3


def test_shutdown_leaves_all_rows_in_the_spool(deployment: Path, example: dict[str, Any]) -> None:
    with started(deployment, log_seconds=60) as client:
        for _ in range(7):
            client.post("/v1/predict", json=example)
        settings = observer(client).settings
    left = Path("predictions.db.spool")
    assert spool.waiting(left).rows == 7
    done = Collector(settings)
    assert done.collect() == 7
    done.close()
    assert len(log_rows()) == 7
    assert not list(left.glob(spool.SEGMENT)), "a segment that is read and not written any more"


def test_half_a_chunk_at_the_end_of_a_killed_server_is_no_row(
    deployment: Path, example: dict[str, Any]
) -> None:
    with started(deployment, log_seconds=60) as client:
        for _ in range(2):
            client.post("/v1/predict", json=example)
            observer(client).flush()
        settings = observer(client).settings
    (segment,) = Path("predictions.db.spool").glob(spool.SEGMENT)
    segment.write_bytes(segment.read_bytes()[:-1])
    done = Collector(settings)
    assert done.collect() == 1
    done.close()
    assert len(log_rows()) == 1
    assert not segment.exists()


def test_damaged_segment_is_set_aside_and_the_others_are_written(
    deployment: Path, example: dict[str, Any]
) -> None:
    with started(deployment, log_seconds=60) as client:
        client.post("/v1/predict", json=example)
    with started(deployment, log_seconds=60) as client:
        client.post("/v1/predict", json=example)
        settings = observer(client).settings
    first, _ = sorted(Path("predictions.db.spool").glob(spool.SEGMENT))
    content = bytearray(first.read_bytes())
    content[-1] ^= 255
    first.write_bytes(content)
    done = Collector(settings)
    done.collect()
    assert done.collect() + len(log_rows()) >= 1
    done.close()
    assert len(log_rows()) == 1
    assert first.with_suffix(".damaged").read_bytes() == content


def test_chunk_of_another_version_is_set_aside_and_the_server_goes_on_logging(
    client: TestClient, example: dict[str, Any]
) -> None:
    client.post("/v1/predict", json=example)
    assert len(written(client)) == 1
    other = spool.Chunk(["v1", "champion", None], {"request_id": ["a"]}, {}, {})
    observer(client).spool.append(other.pack(1, time.time()))
    assert len(written(client)) == 1
    assert list(Path("predictions.db.spool").glob("*.damaged"))
    client.post("/v1/predict", json=example)
    assert len(written(client)) == 2


def test_collecting_again_after_a_kill_between_writing_and_noting_it_adds_no_row(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        client.post("/v1/predict", json=example)
    observer(client).flush()
    killed = Collector(observer(client).settings)
    with monkeypatch.context() as patch:
        patch.setattr(spool.SpoolReader, "commit", lambda *_: None)
        assert killed._collect_some() == 3
    killed.close()
    assert spool.waiting(Path("predictions.db.spool")).rows == 3
    assert len(written(client)) == 3


def test_only_one_collector_reads_a_spool(client: TestClient, example: dict[str, Any]) -> None:
    client.post("/v1/predict", json=example)
    observer(client).flush()
    first, second = (Collector(observer(client).settings) for _ in range(2))
    assert first.reader.lock()
    assert not second.reader.lock()
    assert sample(client, "collector_up") == 1
    first.close()
    assert sample(client, "collector_up") == 0
    assert second.reader.lock()
    second.close()


def test_metrics_count_requests_items_and_predictions(
    client: TestClient, request_items: list[dict[str, Any]]
) -> None:
    version = client.get("/readyz").json()["model_version"]
    groups = [request_items[:1], request_items[1:3], request_items[3:10]]
    answers = [client.post("/v1/predict", json={"items": items}) for items in groups]
    assert {answer.status_code for answer in answers} == {200}
    model = {"version": version, "variant": "champion"}
    route = {"route": "/v1/predict", **model}
    assert sample(client, "http_requests_total", status="200", **route) == 3
    assert sample(client, "http_request_seconds_count", **route) == 3
    assert sample(client, "http_request_seconds_bucket", le="+Inf", **route) == 3
    sum_ = sample(client, "http_request_seconds_sum", **route)
    assert 0 < sum_ < 30
    assert sample(client, "predictions_total", **model) == 10
    text = client.get("/metrics").text
    outcomes = set(re.findall(r'predicted_total\{.*?outcome="([^"]+)"', text))
    assert outcomes
    for outcome in outcomes:
        assert sample(client, "predicted_total", outcome=outcome, **model) == 10
    # The buckets agree with the logged times.
    milliseconds = [row["milliseconds"] for row in written(client)]
    for bound in (0.001, 0.01, 0.1, 1.0):
        count = sum(value <= bound * 1000 for value in milliseconds)
        assert sample(client, "http_request_seconds_bucket", le=f"{bound}", **route) == count


def test_metric_labels_are_bounded(client: TestClient, pairs: list[LabelledItem]) -> None:
    shifted = [item.model_dump(exclude_unset=True) for item, _ in pairs[:200]]
    for start in range(0, len(shifted), 50):
        client.post("/v1/predict", json={"items": shifted[start : start + 50]})
    text = client.get("/metrics").text
    buckets = set(re.findall(r"predicted_total\{[^}]*\}", text))
    outcomes = set(re.findall(r'predicted_total\{.*?outcome="([^"]+)"', text))
    assert len(buckets) <= (columns.MAX_BUCKETS + 2) * len(outcomes)


def travel(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the system clock ahead by so many seconds."""
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    def jump(seconds: float) -> None:
        ahead[0] = seconds

    return jump


@pytest.mark.parametrize(("days", "log_days"), [(-400, 500), (400, 365)])
def test_clock_jump_costs_no_prediction_and_no_row(
    deployment: Path,
    example: dict[str, Any],
    days: int,
    log_days: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jump = travel(monkeypatch)
    with started(deployment, log_days=log_days) as client:
        keeper = Collector(observer(client).settings)
        for number, seconds in enumerate((0, days * 86400, 0)):
            jump(seconds)
            for _ in range(3):
                assert client.post("/v1/predict", json=example).status_code == 200
            assert len(written(client)) == 3 * (number + 1)
            keeper._next_prune = 0.0
            keeper._prune()
            while keeper._prune():
                pass
            assert len(written(client)) == 3 * (number + 1)
            assert 0 <= sample(client, "prediction_log_lag_seconds") < 60


def test_old_rows_are_deleted(
    deployment: Path, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jump = travel(monkeypatch)
    jump(-40 * 86400)
    with started(deployment, log_days=30) as client:
        client.post("/v1/predict", json=example, headers={"x-request-id": "old"})
        assert written(client)
    jump(0)
    monkeypatch.setattr(collector, "FIRST_PRUNE_SECONDS", 0)
    with started(deployment, log_days=30) as client, collecting(client):
        client.post("/v1/predict", json=example, headers={"x-request-id": "new"})
        until(lambda: [row["client_id"] for row in log_rows()] == ["new"])


def test_address_that_was_replaced_in_its_file_is_taken_without_a_restart(
    deployment: Path, example: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a rotated password is."""
    file = tmp_path / "address"
    file.write_text("sqlite:///first.db\n")
    folder_in_the_way(Path("first.db"))
    monkeypatch.delenv("APP_DATABASE_URL", raising=False)
    monkeypatch.setenv("APP_DATABASE_URL_FILE", str(file))
    monkeypatch.setenv("APP_SPOOL_DIR", "spool")
    with started(deployment, spool_dir=Path("spool")) as client:
        client.post("/v1/predict", json=example)
    keeper = Collector(load_settings(ServerSettings), partial(load_settings, ServerSettings))
    keeper._step()
    assert "first.db" in (keeper.problem or "")
    file.unlink()
    keeper._step()
    assert "first.db" in (keeper.problem or "")
    file.write_text("sqlite:///second.db\n")
    keeper._step()
    keeper._step()
    assert keeper.problem is None
    assert len(log_rows("second.db")) == 1
    keeper.close()


def test_collector_beside_a_server_reads_the_file_of_the_address_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, ended = queue.Queue[dict[str, str]](), threading.Event()

    class Process:
        stdin = None

        def __init__(self, *_: object, env: dict[str, str], **__: object) -> None:
            started.put(env)

        def wait(self, *_: object) -> int:
            return 0 if ended.wait(120) else 1

    monkeypatch.setattr(collector_process.subprocess, "Popen", Process)
    file = tmp_path / "address"
    file.write_text("sqlite:///first.db\n")
    monkeypatch.setenv("APP_DATABASE_URL_FILE", str(file))
    for url, told in (("sqlite:///first.db", None), ("sqlite:///other.db", "sqlite:///other.db")):
        ended.clear()
        with collector_process.running_collector(ServerSettings(database_url=url)):
            env = started.get(timeout=120)
            ended.set()
        assert env.get("APP_DATABASE_URL") == told
        assert env["APP_SPOOL_DIR"] == f"{url.removeprefix('sqlite:///')}.spool"


def test_collect_once_writes_what_a_stopped_server_left(
    deployment: Path, example: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with started(deployment, log_seconds=60) as client:
        for _ in range(3):
            client.post("/v1/predict", json=example)
    assert cli.main(["collect", "--once"]) == 0
    assert capsys.readouterr().out == "3 predictions written from predictions.db.spool\n"
    assert len(log_rows()) == 3
    folder_in_the_way(Path("elsewhere.db"))
    assert cli.main(["collect", "--once", "database_url=sqlite:///elsewhere.db"]) == 1
    assert "0 predictions wait in elsewhere.db.spool" in capsys.readouterr().err
    assert cli.main(["collect", "--once", "database_url=none"]) == 2
