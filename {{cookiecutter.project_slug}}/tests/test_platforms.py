"""Each platform's requests, as the platform sends them, get the answers of `/v1/predict`."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.serving import settings as server_settings
from {{ cookiecutter.package_name }}.serving.settings import with_platform
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings

from .servers import close, running, sample, started, until

VERTEX_PREDICT = "/v1/endpoints/7/deployedModels/8:predict"
VERTEX_HEALTH = "/v1/endpoints/7/deployedModels/8"
JSON = {"content-type": "application/json"}


@pytest.fixture
def vertex(deployment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("AIP_HEALTH_ROUTE", VERTEX_HEALTH)
    monkeypatch.setenv("AIP_PREDICT_ROUTE", VERTEX_PREDICT)
    with started(deployment, platforms=["vertex"]) as client:
        yield client


@pytest.fixture
def kserve(deployment: Path) -> Iterator[TestClient]:
    with started(deployment, platforms=["kserve"]) as client:
        yield client


def answer(client: TestClient, example: dict[str, Any]) -> list[Any]:
    """The predictions of the server's own route."""
    return client.post("/v1/predict", json=example).json()["predictions"]


def infer_path(client: TestClient) -> str:
    return f"/v2/models/{client.get('/v1/models').json()['models'][0]['name']}/infer"


def item_tensor(items: list[Any]) -> dict[str, Any]:
    texts = [json.dumps(item) for item in items]
    return {"name": "item", "datatype": "BYTES", "shape": [len(texts)], "data": texts}


def test_sagemaker_pings_and_invokes(deployment: Path, example: dict[str, Any]) -> None:
    with started(deployment, platforms=["sagemaker"]) as client:
        assert client.get("/ping").status_code == 200
        given = client.post("/invocations", content=json.dumps(example), headers=JSON)
        assert given.status_code == 200
        assert close(given.json()["predictions"], answer(client, example), 1e-6)
        assert given.headers["x-model-version"] == given.json()["model_version"]


def test_ping_fails_without_a_model(tmp_path: Path) -> None:
    with started(tmp_path, platforms=["sagemaker"]) as client:
        assert client.get("/ping").status_code == 503


def test_vertex_gets_one_prediction_per_instance(
    vertex: TestClient, example: dict[str, Any]
) -> None:
    assert vertex.get(VERTEX_HEALTH).status_code == 200
    body = json.dumps({"instances": example["items"] * 2})
    given = vertex.post(VERTEX_PREDICT, content=body, headers=JSON)
    assert given.status_code == 200
    assert given.headers["content-type"] == "application/json"
    assert given.json().keys() == {"predictions"}
    assert close(given.json()["predictions"], answer(vertex, example) * 2, 1e-6)
    assert vertex.post(VERTEX_PREDICT, json={"instances": []}).status_code == 422
    ignored = vertex.post(VERTEX_PREDICT, json={"instances": [1], "parameters": {"k": 3}})
    assert ignored.status_code == 422, "parameters would be ignored"
    assert ignored.json()["detail"][0]["loc"] == ["body", "parameters"]


def test_open_inference_protocol_describes_server_and_model(
    kserve: TestClient, deployment: Path
) -> None:
    assert kserve.get("/v2/health/live").json() == {"live": True}
    assert kserve.get("/v2/health/ready").json() == {"ready": True}
    assert kserve.head("/v2/health/ready").status_code == 200
    assert kserve.get("/v2").json()["extensions"] == []
    path = infer_path(kserve).removesuffix("/infer")
    model = kserve.get(path).json()
    assert path == f"/v2/models/{model['name']}"
    assert model["inputs"] == [{"name": "item", "datatype": "BYTES", "shape": [-1]}]
    assert kserve.get(f"{path}/ready").json() == {"name": model["name"], "ready": True}
    for unknown in ("/v2/models/other", "/v2/models/other/ready", f"{path}/versions/1", "/v2/x"):
        assert kserve.get(unknown).status_code == 404
        assert isinstance(kserve.get(unknown).json()["error"], str), unknown
    (deployment / "deployment.json").unlink()
    with started(deployment, platforms=["kserve"]) as empty:
        assert empty.get("/v2/health/ready").status_code == 503
        assert empty.get("/v2/health/ready").json() == {"ready": False}
        assert empty.get("/v2/health/live").json() == {"live": True}


def test_infer_takes_items_as_json_texts(kserve: TestClient, example: dict[str, Any]) -> None:
    request = {"id": "42", "inputs": [item_tensor(example["items"] * 3)]}
    given = kserve.post(infer_path(kserve), json=request).json()
    (output,) = given["outputs"]
    assert (given["id"], output["name"], output["datatype"]) == ("42", "prediction", "BYTES")
    assert output["shape"] == [3]
    predictions = [json.loads(text) for text in output["data"]]
    assert close(predictions, answer(kserve, example) * 3, 1e-6)
    models = kserve.get("/v1/models").json()["models"]
    assert given["model_name"] == models[0]["name"]
    assert given["model_version"] == models[0]["version"]


def test_infer_takes_a_tensor_for_each_field_and_returns_those_asked_for(
    kserve: TestClient, example: dict[str, Any]
) -> None:
    (item,) = example["items"]
    fields = {name: value for name, value in item.items() if not isinstance(value, dict)}
    inputs = []
    for name, value in fields.items():
        shape, inner = [1], value
        while isinstance(inner, list) and inner:
            shape.append(len(inner))
            inner = inner[0]
        datatype = "BYTES" if isinstance(inner, str) else "FP64"
        inputs.append({"name": name, "datatype": datatype, "shape": shape, "data": [value]})
    (prediction,) = answer(kserve, {"items": [fields]})
    wanted = [{"name": name} for name in prediction]
    request = {"inputs": inputs, "outputs": wanted}
    given = kserve.post(infer_path(kserve), json=request)
    assert given.status_code == 200, given.text
    outputs = {output["name"]: output for output in given.json()["outputs"]}
    assert outputs.keys() == prediction.keys()
    for name, value in prediction.items():
        output = outputs[name]
        assert output["shape"][0] == 1
        if isinstance(value, bool | str | float):
            assert close(output["data"], [value], 1e-6), name
        if isinstance(value, dict):
            assert close(json.loads(output["data"][0]), value, 1e-6), name


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"inputs": []}, 422, "inputs"),
        ({"inputs": [{"name": "item", "datatype": "BYTES", "shape": [1]}]}, 422, "data"),
        ({"inputs": [{**item_tensor([{}]), "shape": [2]}]}, 422, "body.inputs.0.data: data does"),
        ({"inputs": [{**item_tensor([{}]), "shape": [-1]}]}, 422, "does not fill the shape"),
        ({"inputs": [{**item_tensor([{}]), "shape": [10**13]}]}, 422, "does not fill the shape"),
        ({"inputs": [{**item_tensor([{}]), "shape": [2**80]}]}, 422, "does not fill the shape"),
        ({"inputs": [{**item_tensor([]), "shape": [0]}]}, 422, "at least 1 item"),
        ({"inputs": [{**item_tensor([{}]), "datatype": "TEXT"}]}, 422, "datatype"),
        ({"inputs": [item_tensor([1])]}, 422, "must be the JSON text of an item"),
        ({"inputs": [item_tensor([{"nothing": 1}])]}, 422, "body.items.0"),
        ({"inputs": [item_tensor([{}, {}]), {**item_tensor([{}])}]}, 422, "has 1 items, the first"),
        ({"outputs": [{"name": "other"}]}, 422, "there is no output other, there are prediction"),
    ],
)
def test_invalid_inference_request_gets_an_error_that_names_the_place(
    kserve: TestClient, example: dict[str, Any], change: dict[str, Any], status: int, text: str
) -> None:
    request = {"inputs": [item_tensor(example["items"])], **change}
    given = kserve.post(infer_path(kserve), json=request)
    assert given.status_code == status
    assert given.json().keys() == {"error"}
    assert text in given.json()["error"]


def test_other_faults_of_an_inference_request_are_told_too(kserve: TestClient) -> None:
    path = infer_path(kserve)
    assert kserve.post(path, content=b"{", headers=JSON).status_code == 400
    assert kserve.post(path, content=b"x").status_code == 415
    assert kserve.post("/v2/models/other/infer", json={}).status_code == 404
    assert "there is no model other" in kserve.post("/v2/models/other/infer", json={}).text


def test_platforms_requests_are_limited_counted_and_keyed_like_predictions(
    deployment: Path, example: dict[str, Any]
) -> None:
    settings = {"api_keys": ["the-key"], "max_body_bytes": 2**20}
    with started(deployment, platforms=["sagemaker", "kserve"], **settings) as client:
        key = {"x-api-key": "the-key"}
        assert client.post("/invocations", json=example).status_code == 401
        assert client.post("/v2/models/any/infer", json={}).json().keys() == {"error"}
        assert client.get("/ping").status_code == 200
        packed = gzip.compress(json.dumps(example).encode())
        headers = {**JSON, **key, "content-encoding": "gzip"}
        assert client.post("/invocations", content=packed, headers=headers).status_code == 200
        bomb = gzip.compress(bytes(2**21))
        assert client.post("/invocations", content=bomb, headers=headers).status_code == 413
        route = {"route": "/v1/predict"}
        until(lambda: sample(client, "http_requests_total", status="200", **route) == 1)
        assert sample(client, "http_requests_total", status="401", **route) == 2
        assert sample(client, "http_requests_total", status="413", **route) == 1


def test_without_a_platform_there_are_no_such_routes(client: TestClient) -> None:
    for path in ("/ping", "/v2", "/v2/health/live"):
        assert client.get(path).status_code == 404, path
    assert client.post("/invocations", json={}).status_code == 404


def test_platforms_variables_become_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(**env: str) -> ServerSettings:
        return load_settings(ServerSettings, env=with_platform(env))

    assert read().port == 8000
    assert read().platforms == []
    assert read(PORT="9090").port == 9090  # Cloud Run
    assert read(PORT="9090", APP_PORT="8001").port == 8001
    with pytest.raises(UserError, match=r"\$PORT: 'http' is not a port number"):
        read(PORT="http")
    monkeypatch.setattr(server_settings, "SAGEMAKER_MODEL", tmp_path)
    assert (read().port, read().platforms) == (8080, ["sagemaker"])
    assert read(APP_DEPLOYMENT_DIR="/nowhere").deployment_dir == Path("/nowhere")
    (tmp_path / "deployment.json").touch()  # there the model's files are the deployment
    assert read(APP_DEPLOYMENT_DIR="/nowhere").deployment_dir == tmp_path
    assert read(SAGEMAKER_BIND_TO_PORT="9000").port == 9000
    assert read(APP_PLATFORMS="").platforms == []
    monkeypatch.delenv("AIP_PREDICT_ROUTE", raising=False)
    with pytest.raises(UserError, match="vertex needs a path in "):
        read(APP_PLATFORMS="vertex,kserve")


def test_container_of_vertex_listens_and_answers_where_its_variables_say(
    deployment: Path, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "0")  # any free one, for this test
    monkeypatch.setenv("AIP_HEALTH_ROUTE", VERTEX_HEALTH)
    monkeypatch.setenv("AIP_PREDICT_ROUTE", VERTEX_PREDICT)
    code = (
        f"import os; del os.environ['APP_PORT']; from {cli.__package__} import cli\n"
        "cli.main(['serve'])"
    )
    with running(deployment, code) as server:
        assert server.send(VERTEX_HEALTH).status == 200
        given = server.send(VERTEX_PREDICT, {"instances": example["items"]})
        assert given.status == 200
        assert len(given.json["predictions"]) == len(example["items"])
