"""Ground truth over HTTP, and the metrics of drift and live quality."""

import asyncio
import gzip
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.load import load_bundle
from {{ cookiecutter.package_name }}.monitoring import online
from {{ cookiecutter.package_name }}.serving import feedback, feedback_socket
from {{ cookiecutter.package_name }}.serving.collector import Collector
from {{ cookiecutter.package_name }}.serving.context import RequestError
from {{ cookiecutter.package_name }}.task.contract import SCORE, GroundTruth, Prediction

from .prediction_log import collecting, observer
from .quick import BAD_GROUND_TRUTHS, ground_truths
from .servers import inside, install_copy, rehashed, replace_champion, sample, started, until
from .test_access import KEYS, WITHOUT_KEY, assert_asks_for_a_key
from .test_large_requests import SLOW
from .test_serving import direct, endless, messages


@pytest.fixture
def both(deployment: Path) -> Iterator[tuple[TestClient, Collector]]:
    """A server and its collector."""
    with started(deployment) as client, collecting(client) as collector:
        yield client, collector


@pytest.fixture
def client(both: tuple[TestClient, Collector]) -> TestClient:
    """A server that has a collector."""
    return both[0]


@pytest.fixture
def collector(both: tuple[TestClient, Collector]) -> Collector:
    """The collector of that server."""
    return both[1]


def predicted(client: TestClient, items: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    headers = {"x-request-id": name}
    answer = client.post("/v1/predict", json={"items": items}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def send(client: TestClient, *labels: dict[str, Any]) -> Any:
    return client.post("/v1/feedback", json={"feedback": list(labels)})


def counts(answer: Any) -> tuple[int, int, int]:
    """The numbers of new, changed and same labels."""
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["request_id"] == answer.headers["x-request-id"]
    return content["new"], content["changed"], content["same"]


def test_body_that_takes_long_to_parse_is_refused(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/feedback", content=SLOW, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["detail"][0]["type"] == "too_slow"


def test_labels_are_stored_once_and_can_be_changed(
    deployment: Path, request_items: list[dict[str, Any]]
) -> None:
    # Predictions of a moment ago are found although the log would wait for a minute.
    with started(deployment, log_seconds=60) as client, collecting(client):
        items = request_items[:3]
        right, wrong = zip(*map(ground_truths, predicted(client, items, "many")), strict=True)
        assert counts(send(client, {"request_id": "many", "truth": right[0]})) == (1, 0, 0)
        labels = [
            {"request_id": "many", "item": place, "truth": truth}
            for place, truth in enumerate(right)
        ]
        assert counts(send(client, *labels)) == (2, 0, 1)
        assert counts(send(client, *labels)) == (0, 0, 3)
        changed = {"request_id": "many", "item": 1, "truth": wrong[1]}
        assert counts(send(client, changed)) == (0, 1, 0)
        assert sample(client, "feedback_total", variant="champion") == 3
    with closing(sqlite3.connect("predictions.db")) as connection:
        query = "SELECT item, truth, replaced_at >= at FROM feedback_history"
        (history,) = connection.execute(query).fetchall()
    before = GroundTruth.model_validate(right[1]).model_dump_json()
    assert history == (1, before, 1), "what was replaced is kept"


def test_feedback_waits_for_a_collector_that_is_being_started(
    deployment: Path, request_items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_socket, "START_SECONDS", 120)  # a busy machine takes its time
    with started(deployment) as client, ThreadPoolExecutor(1) as pool:
        (prediction,) = predicted(client, request_items[:1], "early")
        label = {"request_id": "early", "truth": ground_truths(prediction)[0]}
        answer = pool.submit(send, client, label)
        with pytest.raises(TimeoutError):
            answer.result(3 * feedback_socket.RETRY_SECONDS)
        with collecting(client):
            assert counts(answer.result(120)) == (1, 0, 0)


def test_feedback_without_a_collector_gets_503_with_retry_after(
    deployment: Path, request_items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_socket, "START_SECONDS", 0.2)
    with started(deployment) as client:
        (prediction,) = predicted(client, request_items[:1], "alone")
        answer = send(client, {"request_id": "alone", "truth": ground_truths(prediction)[0]})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "no collector reads" in answer.json()["detail"][0]["msg"]


def test_a_server_that_waits_no_longer_leaves_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(feedback_socket, "ANSWER_SECONDS", 0.05)
    gone, threads = threading.Event(), threading.active_count()

    def answer(_: dict[str, Any]) -> dict[str, Any]:
        gone.wait(10)
        return {}

    with feedback_socket.FeedbackServer(tmp_path, answer):
        with pytest.raises(TimeoutError):
            asyncio.run(feedback_socket.ask(tmp_path, {}))
        gone.set()
        until(lambda: threading.active_count() == threads + 1)  # the server's own
    assert "Traceback" not in capfd.readouterr().err


def test_either_id_names_a_request_and_an_ambiguous_one_is_refused(
    client: TestClient, request_items: list[dict[str, Any]]
) -> None:
    own, truths = [], []
    for items in (request_items[:1], request_items[1:2]):
        headers = {"x-request-id": "twice"}
        answer = client.post("/v1/predict", json={"items": items}, headers=headers)
        own.append(answer.headers["x-prediction-id"])
        truths.append(ground_truths(answer.json()["predictions"][0])[0])
    answer = send(client, {"request_id": "twice", "truth": truths[0]})
    assert answer.status_code == 409
    (detail,) = answer.json()["detail"]
    assert all(one in detail["msg"] for one in own)
    for request_id, truth in zip(own, truths, strict=True):
        assert counts(send(client, {"request_id": request_id, "truth": truth})) == (1, 0, 0)


def test_feedback_is_for_whoever_asked_and_for_trusted_keys(
    deployment: Path, request_items: list[dict[str, Any]]
) -> None:
    settings = {"api_keys": ["mine", "theirs", "labels"], "feedback_keys": ["labels"]}
    with started(deployment, **settings) as client, collecting(client):
        client.headers["x-api-key"] = "mine"
        truth, other = ground_truths(predicted(client, request_items[:1], "one")[0])
        feedback = {"request_id": "one", "truth": truth}
        client.headers["x-api-key"] = "theirs"
        assert send(client, feedback).status_code == 404
        client.headers["x-api-key"] = "mine"
        assert counts(send(client, feedback)) == (1, 0, 0)
        client.headers["x-api-key"] = "labels"
        assert counts(send(client, {**feedback, "truth": other})) == (0, 1, 0)


def test_labels_per_minute_are_limited(
    deployment: Path, request_items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback.time, "monotonic", lambda: 1000.0)
    limit = feedback.LabelLimit(3)
    limit.take("one", 3)
    with pytest.raises(RequestError) as raised:
        limit.take("one", 1)
    assert raised.value.status_code == 429
    assert raised.value.headers == {"retry-after": "20"}
    limit.take("two", 3)
    monkeypatch.setattr(feedback.time, "monotonic", lambda: 1020.0)
    limit.take("one", 3)


@pytest.mark.parametrize("headers", WITHOUT_KEY)
def test_feedback_without_a_valid_key_gets_401(deployment: Path, headers: dict[str, str]) -> None:
    with started(deployment, api_keys=KEYS) as client:
        assert_asks_for_a_key(client, client.post("/v1/feedback", json={}, headers=headers))
        assert sample(client, "http_requests_total", status="401") == 1


def test_feedback_before_the_first_deployment_names_no_model(tmp_path: Path) -> None:
    with started(tmp_path / "later", database_url=f"sqlite:///{tmp_path / 'log.db'}") as client:
        answer = send(client, {"request_id": "a", "truth": {}})
        assert answer.headers["x-model-version"] == "none"


def test_feedback_with_an_unknown_request_is_refused_as_a_whole(
    client: TestClient, request_items: list[dict[str, Any]]
) -> None:
    (prediction,) = predicted(client, request_items[:1], "known")
    truth, _ = ground_truths(prediction)
    known = {"request_id": "known", "truth": truth}
    for unknown in ({"request_id": "stranger"}, {"request_id": "known", "item": 1}):
        answer = send(client, known, {**unknown, "truth": truth})
        assert answer.status_code == 404
        (detail,) = answer.json()["detail"]
        assert detail["loc"] == ["body", "feedback", 1, "request_id"]
        assert unknown["request_id"] in detail["msg"]
    assert counts(send(client, known)) == (1, 0, 0)


def test_feedback_before_the_first_prediction_gets_404(
    client: TestClient, request_items: list[dict[str, Any]], deployment: Path
) -> None:
    truth, _ = ground_truths(predicted(client, request_items[:1], "elsewhere")[0])
    with started(deployment, database_url="sqlite:///fresh.db") as fresh, collecting(fresh):
        assert send(fresh, {"request_id": "stranger", "truth": truth}).status_code == 404


@pytest.mark.parametrize(("truth", "word"), BAD_GROUND_TRUTHS)
def test_impossible_ground_truth_gets_422(
    client: TestClient, request_items: list[dict[str, Any]], truth: dict[str, Any], word: str
) -> None:
    (prediction,) = predicted(client, request_items[:1], "one")
    good = {"request_id": "one", "truth": ground_truths(prediction)[0]}
    body = json.dumps({"feedback": [good, {"request_id": "one", "truth": truth}]})
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/feedback", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    (detail,) = answer.json()["detail"]
    assert detail["loc"][:4] == ["body", "feedback", 1, "truth"]
    assert word in json.dumps(detail)
    assert counts(send(client, good)) == (1, 0, 0)


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 422), (b"no json", 400), (b"[" * 15_000, 400)]
)
def test_feedback_that_is_not_json_is_refused(
    client: TestClient, content: bytes, status: int
) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/feedback", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize("content", [{}, {"feedback": []}, {"feedback": [], "more": 1}, []])
def test_invalid_feedback_gets_422(client: TestClient, content: Any) -> None:
    answer = client.post("/v1/feedback", json=content)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


def test_feedback_without_content_length_is_limited_too(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/feedback", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["detail"][0]["loc"] == ["body"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_labels_per_request_are_limited(
    client: TestClient, request_items: list[dict[str, Any]]
) -> None:
    (prediction,) = predicted(client, request_items[:1], "one")
    one = {"request_id": "one", "truth": ground_truths(prediction)[0]}
    assert send(client, *[one] * (feedback.MAX_FEEDBACK + 1)).status_code == 422
    assert counts(send(client, *[one] * feedback.MAX_FEEDBACK)) == (1, 0, feedback.MAX_FEEDBACK - 1)


def test_feedback_without_a_log_gets_503(
    deployment: Path, request_items: list[dict[str, Any]]
) -> None:
    with started(deployment, database_url="none") as client:
        (prediction,) = predicted(client, request_items[:1], "one")
        answer = send(client, {"request_id": "one", "truth": ground_truths(prediction)[0]})
        assert answer.status_code == 503
        assert "no prediction log" in answer.json()["detail"][0]["msg"]


def test_feedback_while_the_database_is_unavailable_gets_503_with_retry_after(
    deployment: Path, request_items: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "log.db"
    path.mkdir()
    with started(deployment, database_url=f"sqlite:///{path}") as client:
        (prediction,) = predicted(client, request_items[:1], "one")
        one = {"request_id": "one", "truth": ground_truths(prediction)[0]}

        def refused(reason: str) -> None:
            answer = send(client, one)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert reason in answer.json()["detail"][0]["msg"]

        refused("no collector")
        with collecting(client):
            refused("unable to open")
            path.rmdir()
            assert counts(send(client, one)) == (1, 0, 0)


def test_compressed_feedback_is_taken(
    client: TestClient, request_items: list[dict[str, Any]]
) -> None:
    (prediction,) = predicted(client, request_items[:1], "one")
    one = {"request_id": "one", "truth": ground_truths(prediction)[0]}
    content = gzip.compress(json.dumps({"feedback": [one]}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert counts(client.post("/v1/feedback", content=content, headers=headers)) == (1, 0, 0)
    cut = client.post("/v1/feedback", content=content[:-1], headers=headers)
    assert (cut.status_code, cut.json()["detail"][0]["type"]) == (400, "gzip")
    bomb = gzip.compress(b" " * 2**24)
    assert client.post("/v1/feedback", content=bomb, headers=headers).status_code == 413
    headers["content-encoding"] = "br"
    assert client.post("/v1/feedback", content=content, headers=headers).status_code == 415


def test_slow_feedback_gets_408(deployment: Path) -> None:
    with started(deployment, body_seconds=0.05) as client:
        parts = messages(b'{"feedback"')
        status, headers, answer = direct(client, inside(client), parts, "/v1/feedback")
        assert (status, answer["detail"][0]["type"]) == (408, "body_too_slow")
        assert headers["connection"] == "close"


@pytest.mark.parametrize("bad", [r"\u0000", r"a\u0000", r"\ud800", r"a\n", "a b", "", "x" * 65])
def test_ids_that_no_request_has_get_422(
    client: TestClient, request_items: list[dict[str, Any]], bad: str
) -> None:
    """PostgreSQL knows no NUL, and UTF-8 no lone surrogate."""
    (prediction,) = predicted(client, request_items[:1], "one")
    one = {"request_id": "ID", "truth": ground_truths(prediction)[0]}
    content = json.dumps({"feedback": [one]}).replace("ID", bad)
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/feedback", content=content.encode(), headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["body", "feedback", 0, "request_id"]


def test_feedback_can_be_closed(deployment: Path) -> None:
    with started(deployment, feedback=False) as client:
        assert send(client).status_code == 404
        assert "/v1/feedback" not in client.get("/openapi.json").json()["paths"]


def measure(client: TestClient, collector: Collector) -> None:
    """Measure drift and quality now, as the server does every minute."""
    observer(client).flush()
    collector.collect()
    collector.measure()


def deploy_shifted_reference(deployment: Path) -> str:
    """Deploy the model with a reference in which all numbers were larger during training."""
    new = install_copy(deployment, "shifted")
    path = folder.bundle_path(deployment, new) / "reference.json"
    reference = json.loads(path.read_bytes())
    for column in (*reference["features"].values(), *reference["predictions"].values()):
        if "edges" in column:
            column["effective"] = reference["rows"] = 1000
            for name in ("edges", "sample"):
                column[name] = [1000 + value for value in column[name]]
    path.write_text(json.dumps(reference))
    replace_champion(deployment, rehashed(deployment, new))
    return new.version


def test_drift_is_in_the_metrics(
    client: TestClient,
    collector: Collector,
    request_items: list[dict[str, Any]],
    deployment: Path,
) -> None:
    version = deploy_shifted_reference(deployment)
    until(lambda: client.get("/readyz").json()["model_version"] == version)
    predicted(client, request_items[:1], "first")
    measure(client, collector)
    assert sample(client, "drift_window_rows", version=version) == 1
    assert sample(client, "drift_detected") == 0, "one row proves nothing"
    items = (request_items * 8)[:199]
    for start in range(0, len(items), 50):
        predicted(client, items[start : start + 50], f"r{start}")
    measure(client, collector)
    assert sample(client, "drift_window_rows", version=version) == 200
    reference = inside(client).models.loaded()[0].bundle.reference
    distributions = online.with_predictions(reference["features"], reference["predictions"])
    numeric = [name for name, distribution in distributions.items() if "edges" in distribution]
    assert numeric
    for name in numeric:
        labels = {"version": version, "feature": name}
        assert sample(client, "drift_detected", **labels) == 1, name
        assert sample(client, "drift_psi", **labels) > 0.25
        assert sample(client, "drift_p_value", **labels) < 0.01
    for row in online.measure_drift(collector.database, reference, version=version):
        labels = {"version": version, "feature": row.feature}
        assert sample(client, "drift_psi", **labels) == pytest.approx(row.psi)
        assert sample(client, "drift_detected", **labels) == row.drifted


def test_live_quality_is_in_the_metrics(
    client: TestClient,
    collector: Collector,
    request_items: list[dict[str, Any]],
    deployment: Path,
) -> None:
    bundle = load_bundle(*folder.champion_path(deployment))
    measure(client, collector)
    assert sample(client, "quality_labels") == 0
    predictions = predicted(client, request_items[:10], "ten")
    truths_sent, scores = [], []
    for place, prediction in enumerate(predictions):
        truth = ground_truths(prediction)[place % 3 == 0]
        truths_sent.append({"request_id": "ten", "item": place, "truth": truth})
        score = bundle.contract.score(
            Prediction.model_validate(prediction), GroundTruth.model_validate(truth)
        )
        scores.append(score)
    assert counts(send(client, *truths_sent)) == (10, 0, 0)
    measure(client, collector)
    labels = {"version": bundle.version, "metric": SCORE.name}
    mean, expected = float(np.mean(scores)), bundle.manifest.metrics[SCORE.name]
    assert len(set(scores)) > 1
    assert sample(client, "quality_labels", version=bundle.version) == 10
    assert sample(client, "quality_mean", variant="champion", **labels) == pytest.approx(mean)
    assert sample(client, "quality_expected", **labels) == pytest.approx(expected)
    lost = expected - mean if SCORE.higher_is_better else mean - expected
    drop = sample(client, "quality_drop_ratio", variant="champion", **labels)
    assert drop == pytest.approx(lost / abs(expected))


def test_monitoring_an_empty_log_is_fine(client: TestClient, collector: Collector) -> None:
    """A new server measures before the first prediction."""
    measure(client, collector)
    assert sample(client, "drift_detected") == 0
    assert client.get("/readyz").status_code == 200
