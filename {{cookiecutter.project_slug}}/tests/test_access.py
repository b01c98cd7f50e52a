"""Who may ask, from where, and what the documentation promises them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.serving import app
from {{ cookiecutter.package_name }}.serving.settings import load_server_settings

from .quick import BAD_ITEMS
from .servers import sample, started

KEYS = "first-key,second-key"
PAGE = "https://pages.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "first-key"},
        {"x-api-key": "second-key"},
        {"authorization": "Bearer first-key"},
        {"authorization": "bearer second-key"},
    ],
)
def test_one_of_the_keys_opens_the_door(
    deployment: Path, example: dict[str, Any], headers: dict[str, str]
) -> None:
    with started(deployment, api_keys=KEYS) as client:
        assert client.post("/v1/predict", json=example, headers=headers).status_code == 200
        assert client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": KEYS},
        {"x-api-key": "first"},
        {"authorization": "Bearer"},
        {"authorization": "Basic first-key"},
        {"authorization": "first-key"},
    ],
)
def test_without_a_key_only_health_metrics_and_documentation_are_open(
    deployment: Path, example: dict[str, Any], headers: dict[str, str]
) -> None:
    with started(deployment, api_keys=KEYS) as client:
        for answer in (
            client.post("/v1/predict", json=example, headers=headers),
            client.post("/v1/feedback", json={}, headers=headers),
            client.get("/v1/models", headers=headers),
        ):
            assert answer.status_code == 401
            assert answer.json()["detail"][0]["loc"] == ["header", "x-api-key"]
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
            version = client.get("/readyz").json()["model_version"]
            assert answer.headers["x-model-version"] == version
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            assert client.get(path, headers=headers).status_code == 200, path
        assert sample(client, "http_requests_total", route="/v1/predict", status="401") == 1
        assert sample(client, "http_requests_total", status="401") == 3


@pytest.mark.parametrize(
    ("setting", "secret"),
    [
        ("api_keys=good-one,change-me", "good-one"),
        ("api_keys=Secret", "Secret"),
        ("database_url=postgresql://me:postgres@host/log", "me:postgres"),
        ("database_url=postgresql://me:@host/log", "me:@"),
    ],
)
def test_production_refuses_secrets_that_everybody_knows(setting: str, secret: str) -> None:
    load_server_settings([setting])
    with pytest.raises(UserError) as wrong:
        load_server_settings(["environment=production", setting])
    (line,) = str(wrong.value).splitlines()
    assert f"command line: {setting.partition('=')[0]}: " in line
    assert secret not in line


def test_production_takes_good_secrets() -> None:
    given = ["api_keys=long-and-random", "database_url=postgresql://me:as-random@host/log"]
    assert load_server_settings(["environment=production", *given]).api_keys == ["long-and-random"]


@pytest.mark.parametrize(
    "setting", ["database_url=mysql://me:hunter2@host/log", "api_keys=hunter2,x environment=test"]
)
def test_a_wrong_setting_shows_no_password(setting: str) -> None:
    with pytest.raises(UserError) as wrong:
        load_server_settings(setting.split())
    assert "hunter2" not in str(wrong.value)


def test_web_pages_may_not_ask(client: TestClient, example: dict[str, Any]) -> None:
    answer = client.post("/v1/predict", json=example, headers={"origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers
    wanted = {"origin": PAGE, "access-control-request-method": "POST"}
    assert client.options("/v1/predict", headers=wanted).status_code == 405


def test_web_pages_that_are_named_may_ask(deployment: Path, example: dict[str, Any]) -> None:
    settings = {"cors_origins": PAGE, "api_keys": KEYS}
    wanted = {"access-control-request-method": "POST"}
    wanted["access-control-request-headers"] = "content-type,x-api-key"
    key = {"x-api-key": "first-key"}
    with started(deployment, **settings) as client:
        for origin, allowed in ((PAGE, True), ("https://elsewhere.example", False)):
            before = client.options("/v1/predict", headers={"origin": origin, **wanted})
            assert (before.status_code == 200) == allowed
            headers = {"origin": origin, **key}
            answer = client.post("/v1/predict", json=example, headers=headers)
            assert (answer.headers.get("access-control-allow-origin") == PAGE) == allowed


def test_a_wrong_address_or_method_has_the_same_form_of_answer(client: TestClient) -> None:
    for answer, status in ((client.get("/nowhere"), 404), (client.get("/v1/predict"), 405)):
        assert answer.status_code == status
        assert answer.json()["detail"][0]["msg"]
        assert answer.json()["request_id"]


def test_the_documentation_needs_no_internet(client: TestClient) -> None:
    page = client.get("/docs").text
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert links
    for link in links:
        assert not re.match(r"(https?:)?//", link), link
        assert client.get(f"/{link}").status_code == 200
    assert client.get("/", follow_redirects=False).headers["location"] == "docs"


def test_the_documentation_brings_an_example_that_works_and_names_every_status(
    client: TestClient,
) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert client.post("/v1/predict", json=content["example"]).status_code == 200
    assert set(content["example"]["items"][0]) <= set(fields(content["schema"]))
    wanted = {"200", "400", "401", "408", "413", "415", "422", "503", "504"}
    assert set(operation["responses"]) == wanted
    assert "$ref" not in json.dumps(operation["requestBody"])
    for status, answer in operation["responses"].items():
        name = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert name == ("PredictResponse" if status == "200" else "ErrorResponse")


def fields(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields of an item, from the schema of a request."""
    item = schema["properties"]["items"]["items"]
    assert item["additionalProperties"] is schema["additionalProperties"] is False
    return item["properties"]


def test_what_the_schema_forbids_is_refused(client: TestClient, example: dict[str, Any]) -> None:
    """Counter-examples: what has a field that the schema lacks, or lacks one that it requires."""
    schema = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
    schema = schema["content"]["application/json"]["schema"]
    item = schema["properties"]["items"]["items"]
    strangers = [bad for bad, field in BAD_ITEMS if field in bad and field not in fields(schema)]
    lacking = [
        {name: value for name, value in example["items"][0].items() if name != needed}
        for needed in item.get("required", ())
    ]
    assert strangers or lacking
    for bad in (*strangers, *lacking):
        assert client.post("/v1/predict", json={"items": [bad]}).status_code == 422
    most = schema["properties"]["items"]["maxItems"]
    for count, status in ((0, 422), (most, 200), (most + 1, 422)):
        answer = client.post("/v1/predict", json={"items": example["items"][:1] * count})
        assert answer.status_code == status


def test_answers_are_what_the_schema_says(client: TestClient, example: dict[str, Any]) -> None:
    """The short way writes its answer by hand."""
    answer = client.post("/v1/predict", json=example)
    app.PredictResponse.model_validate_json(answer.content, strict=True, extra="forbid")
    app.ErrorResponse.model_validate_json(
        client.post("/v1/predict", json={}).content, extra="forbid"
    )


def test_models_tells_the_measured_quality(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert model["variant"] == "champion"
    assert model["share"] is None
    assert model["metrics"]
    assert model["baseline_metrics"]
