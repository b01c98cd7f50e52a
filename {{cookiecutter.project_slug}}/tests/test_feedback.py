"""What was right comes back over HTTP, and drift and quality of the running model are measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.load import load_bundle
from {{ cookiecutter.package_name }}.monitoring import online
from {{ cookiecutter.package_name }}.serving import feedback, monitor
from {{ cookiecutter.package_name }}.task.contract import SCORE, GroundTruth, Prediction

from .conftest import Traffic
from .quick import BAD_GROUND_TRUTHS, ground_truths
from .servers import another, crown, inside, remade, sample, started, until


def predicted(client: TestClient, items: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    headers = {"x-request-id": name}
    answer = client.post("/v1/predict", json={"items": items}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def send(client: TestClient, *given: dict[str, Any]) -> Any:
    return client.post("/v1/feedback", json={"feedback": list(given)})


def counts(answer: Any) -> tuple[int, int, int]:
    """New, changed and same of an answer."""
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["request_id"] == answer.headers["x-request-id"]
    return content["new"], content["changed"], content["same"]


def test_truths_are_taken_one_or_many_and_again_without_effect(
    deployment: Path, traffic: Traffic
) -> None:
    # The log would wait for a minute: what was answered a moment ago is found all the same.
    with started(deployment, log_seconds=60) as client:
        items = traffic.usual[:3]
        right, wrong = zip(*map(ground_truths, predicted(client, items, "many")), strict=True)
        assert counts(send(client, {"request_id": "many", "truth": right[0]})) == (1, 0, 0)
        all_ = [
            {"request_id": "many", "item": place, "truth": truth}
            for place, truth in enumerate(right)
        ]
        assert counts(send(client, *all_)) == (2, 0, 1)
        assert counts(send(client, *all_)) == (0, 0, 3)
        changed = {"request_id": "many", "item": 1, "truth": wrong[1]}
        assert counts(send(client, changed)) == (0, 1, 0)
        assert sample(client, "feedback_total", variant="champion") == 3


def test_feedback_about_unknown_requests_is_refused_as_a_whole_and_named(
    client: TestClient, traffic: Traffic
) -> None:
    (prediction,) = predicted(client, traffic.usual[:1], "known")
    truth, _ = ground_truths(prediction)
    known = {"request_id": "known", "truth": truth}
    for stranger in ({"request_id": "stranger"}, {"request_id": "known", "item": 1}):
        answer = send(client, known, {**stranger, "truth": truth})
        assert answer.status_code == 404
        (detail,) = answer.json()["detail"]
        assert detail["loc"] == ["body", "feedback", 1, "request_id"]
        assert stranger["request_id"] in detail["msg"]
    assert counts(send(client, known)) == (1, 0, 0)


def test_before_the_first_prediction_every_request_is_unknown(
    client: TestClient, traffic: Traffic, deployment: Path
) -> None:
    truth, _ = ground_truths(predicted(client, traffic.usual[:1], "elsewhere")[0])
    with started(deployment, database_url="sqlite:///fresh.db") as fresh:
        assert send(fresh, {"request_id": "stranger", "truth": truth}).status_code == 404


@pytest.mark.parametrize(("truth", "word"), BAD_GROUND_TRUTHS)
def test_a_truth_that_cannot_be_is_refused(
    client: TestClient, traffic: Traffic, truth: dict[str, Any], word: str
) -> None:
    (prediction,) = predicted(client, traffic.usual[:1], "one")
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
    ("content", "status"), [(b"", 422), (b"no json", 400), (b"[" * 100_000, 400)]
)
def test_what_is_no_json_is_refused(client: TestClient, content: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/feedback", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize("content", [{}, {"feedback": []}, {"feedback": [], "more": 1}, []])
def test_what_is_no_feedback_is_422(client: TestClient, content: Any) -> None:
    answer = client.post("/v1/feedback", json=content)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


def test_too_much_feedback_is_refused(client: TestClient, traffic: Traffic) -> None:
    (prediction,) = predicted(client, traffic.usual[:1], "one")
    one = {"request_id": "one", "truth": ground_truths(prediction)[0]}
    assert send(client, *[one] * (feedback.MAX_FEEDBACK + 1)).status_code == 422
    assert counts(send(client, *[one] * feedback.MAX_FEEDBACK)) == (1, 0, feedback.MAX_FEEDBACK - 1)


def test_without_a_log_there_is_no_feedback(deployment: Path, traffic: Traffic) -> None:
    with started(deployment, database_url="none") as client:
        (prediction,) = predicted(client, traffic.usual[:1], "one")
        answer = send(client, {"request_id": "one", "truth": ground_truths(prediction)[0]})
        assert answer.status_code == 503
        assert "no prediction log" in answer.json()["detail"][0]["msg"]


def test_while_the_database_is_away_feedback_is_told_to_come_again(
    deployment: Path, traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "WRITE_SECONDS", 0.05)
    path = tmp_path / "log.db"
    path.mkdir()
    with started(deployment, database_url=f"sqlite:///{path}") as client:
        (prediction,) = predicted(client, traffic.usual[:1], "one")
        one = {"request_id": "one", "truth": ground_truths(prediction)[0]}
        answer = send(client, one)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "unable to open" in answer.json()["detail"][0]["msg"]
        path.rmdir()
        monkeypatch.setattr(feedback, "WRITE_SECONDS", 10.0)
        assert counts(send(client, one)) == (1, 0, 0)


def measure(client: TestClient) -> None:
    """Look at the log now, as the server does every minute."""
    predict = inside(client).predict
    assert predict.recorder.flush(10)
    monitor.update_gauges(predict.engine, predict.recorder, predict.metrics)


def of_another_world(deployment: Path) -> str:
    """Deploy the model with the claim that all numbers were larger when it was trained."""
    new = another(deployment, "of-another-world")
    path = folder.bundle_path(deployment, new) / "reference.json"
    reference = json.loads(path.read_bytes())
    for found in (*reference["features"].values(), *reference["predictions"].values()):
        if "edges" in found:
            found["effective"] = reference["rows"] = 1000
            for name in ("edges", "sample"):
                found[name] = [1000 + value for value in found[name]]
    path.write_text(json.dumps(reference))
    crown(deployment, remade(deployment, new))
    return new.version


def test_drift_shows_in_the_metrics(client: TestClient, traffic: Traffic, deployment: Path) -> None:
    version = of_another_world(deployment)
    until(lambda: client.get("/readyz").json()["model_version"] == version)
    predicted(client, traffic.usual[:1], "first")
    measure(client)
    assert sample(client, "drift_window_rows", version=version) == 1
    assert sample(client, "drift_detected") == 0, "of one row nothing is known"
    items = (traffic.usual * 8)[:199]
    for start in range(0, len(items), 50):
        predicted(client, items[start : start + 50], f"r{start}")
    measure(client)
    assert sample(client, "drift_window_rows", version=version) == 200
    predict = inside(client).predict
    reference = predict.engine.models()[0].reference
    numbers = [
        name
        for name, found in online.reference_distributions(reference).items()
        if "edges" in found
    ]
    assert numbers
    for name in numbers:
        own = {"version": version, "feature": name}
        assert sample(client, "drift_detected", **own) == 1, name
        assert sample(client, "drift_psi", **own) > 0.25
        assert sample(client, "drift_p_value", **own) < 0.01
    for row in online.measure_drift(predict.recorder.database, reference, version=version):
        own = {"version": version, "feature": row.feature}
        assert sample(client, "drift_psi", **own) == pytest.approx(row.psi)
        assert sample(client, "drift_detected", **own) == row.drifted


def test_quality_shows_in_the_metrics(
    client: TestClient, traffic: Traffic, deployment: Path
) -> None:
    bundle = load_bundle(*folder.champion_path(deployment))
    measure(client)
    assert sample(client, "quality_labels") == 0
    predictions = predicted(client, traffic.usual[:10], "ten")
    given, scores = [], []
    for place, prediction in enumerate(predictions):
        truth = ground_truths(prediction)[place % 3 == 0]
        given.append({"request_id": "ten", "item": place, "truth": truth})
        score = bundle.contract.score(
            Prediction.model_validate(prediction), GroundTruth.model_validate(truth)
        )
        scores.append(score)
    assert counts(send(client, *given)) == (10, 0, 0)
    measure(client)
    own = {"version": bundle.version, "metric": SCORE.name}
    mean, expected = float(np.mean(scores)), bundle.manifest["metrics"][SCORE.name]
    assert len(set(scores)) > 1
    assert sample(client, "quality_labels", version=bundle.version) == 10
    assert sample(client, "quality_mean", variant="champion", **own) == pytest.approx(mean)
    assert sample(client, "quality_expected", **own) == pytest.approx(expected)
    lost = expected - mean if SCORE.higher_is_better else mean - expected
    drop = sample(client, "quality_drop_ratio", variant="champion", **own)
    assert drop == pytest.approx(lost / abs(expected))


def test_a_look_at_a_log_without_tables_changes_nothing(client: TestClient) -> None:
    """A fresh server looks before anybody has asked anything."""
    measure(client)
    assert sample(client, "drift_detected") == 0
    assert client.get("/readyz").status_code == 200
