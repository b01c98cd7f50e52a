"""API keys, CORS, and the promises of the OpenAPI documentation."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.serving.schemas import ErrorResponse, PredictResponse
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings

from .quick import BAD_ITEMS
from .servers import sample, started

KEYS = "first-key,second-key"
WITHOUT_KEY = [
    {},
    {"x-api-key": ""},
    {"x-api-key": KEYS},
    {"x-api-key": "first"},
    {"authorization": "Bearer"},
    {"authorization": "Basic first-key"},
    {"authorization": "first-key"},
]
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
def test_each_api_key_is_accepted_in_both_headers(
    deployment: Path, example: dict[str, Any], headers: dict[str, str]
) -> None:
    with started(deployment, api_keys=KEYS) as client:
        assert client.post("/v1/predict", json=example, headers=headers).status_code == 200
        assert client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", WITHOUT_KEY)
def test_without_a_valid_key_only_health_metrics_and_docs_answer(
    deployment: Path, example: dict[str, Any], headers: dict[str, str]
) -> None:
    with started(deployment, api_keys=KEYS) as client:
        for answer in (
            client.post("/v1/predict", json=example, headers=headers),
            client.get("/v1/models", headers=headers),
        ):
            assert_asks_for_a_key(client, answer)
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            assert client.get(path, headers=headers).status_code == 200, path
        assert sample(client, "http_requests_total", route="/v1/predict", status="401") == 1
        assert sample(client, "http_requests_total", status="401") == 2


def assert_asks_for_a_key(client: TestClient, answer: Any) -> None:
    assert answer.status_code == 401
    assert answer.json()["detail"][0]["loc"] == ["header", "x-api-key"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    version = client.get("/readyz").json()["model_version"]
    assert answer.headers["x-model-version"] == version
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("setting", "secret"),
    [
        ("api_keys=good-one,change-me", "good-one"),
        ("api_keys=Secret", "Secret"),
    ],
)
def test_production_refuses_well_known_secrets(setting: str, secret: str) -> None:
    load_settings(ServerSettings, None, [setting])
    with pytest.raises(UserError) as raised:
        load_settings(ServerSettings, None, ["environment=production", setting])
    (line,) = str(raised.value).splitlines()
    assert f"command line: {setting.partition('=')[0]}: " in line
    assert secret not in line


def test_production_accepts_random_secrets() -> None:
    settings = ["environment=production", "api_keys=long-and-random"]
    assert load_settings(ServerSettings, None, settings).api_keys == ["long-and-random"]


def test_error_of_an_invalid_setting_shows_no_secret() -> None:
    with pytest.raises(UserError) as raised:
        load_settings(ServerSettings, None, ["api_keys=hunter2,x", "environment=test"])
    assert "hunter2" not in str(raised.value)


def test_cors_is_off_by_default(client: TestClient, example: dict[str, Any]) -> None:
    answer = client.post("/v1/predict", json=example, headers={"origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers
    preflight = {"origin": PAGE, "access-control-request-method": "POST"}
    assert client.options("/v1/predict", headers=preflight).status_code == 405


def test_cors_allows_the_configured_origins_only(deployment: Path, example: dict[str, Any]) -> None:
    settings = {"cors_origins": PAGE, "api_keys": KEYS}
    preflight = {"access-control-request-method": "POST"}
    preflight["access-control-request-headers"] = "content-type,x-api-key"
    key = {"x-api-key": "first-key"}
    with started(deployment, **settings) as client:
        for origin, allowed in ((PAGE, True), ("https://elsewhere.example", False)):
            before = client.options("/v1/predict", headers={"origin": origin, **preflight})
            assert (before.status_code == 200) == allowed
            headers = {"origin": origin, **key}
            answer = client.post("/v1/predict", json=example, headers=headers)
            assert (answer.headers.get("access-control-allow-origin") == PAGE) == allowed


def test_unknown_path_and_method_get_errors_in_the_common_form(client: TestClient) -> None:
    for answer, status in ((client.get("/nowhere"), 404), (client.get("/v1/predict"), 405)):
        assert answer.status_code == status
        assert answer.json()["detail"][0]["msg"]
        assert answer.json()["request_id"]


def test_docs_page_needs_no_internet(client: TestClient) -> None:
    page = client.get("/docs").text
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert links
    for link in links:
        assert not re.match(r"(https?:)?//", link), link
        assert client.get(f"/{link}").status_code == 200
    assert client.get("/", follow_redirects=False).headers["location"] == "docs"


def test_documented_example_works_and_every_status_is_documented(
    client: TestClient,
) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert client.post("/v1/predict", json=content["example"]).status_code == 200
    assert set(content["example"]["items"][0]) <= set(fields(content["schema"]))
    statuses = {"200", "400", "401", "408", "413", "415", "422", "503", "504"}
    assert set(operation["responses"]) == statuses
    assert "$ref" not in json.dumps(operation["requestBody"])
    for status, answer in operation["responses"].items():
        name = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert name == ("PredictResponse" if status == "200" else "ErrorResponse")


def fields(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields of an item, from the schema of a request."""
    item = schema["properties"]["items"]["items"]
    assert item["additionalProperties"] is schema["additionalProperties"] is False
    return item["properties"]


def test_bodies_that_violate_the_documented_schema_get_422(
    client: TestClient, example: dict[str, Any]
) -> None:
    """Counter-examples: items with a field that is unknown, or without one that is required."""
    schema = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
    schema = schema["content"]["application/json"]["schema"]
    item = schema["properties"]["items"]["items"]
    unknown = [bad for bad, field in BAD_ITEMS if field in bad and field not in fields(schema)]
    missing = [
        {name: value for name, value in example["items"][0].items() if name != required}
        for required in item.get("required", ())
    ]
    assert unknown or missing
    for bad in (*unknown, *missing):
        assert client.post("/v1/predict", json={"items": [bad]}).status_code == 422
    limit = schema["properties"]["items"]["maxItems"]
    for count, status in ((0, 422), (limit, 200), (limit + 1, 422)):
        answer = client.post("/v1/predict", json={"items": example["items"][:1] * count})
        assert answer.status_code == status


def test_responses_match_the_documented_schema(client: TestClient, example: dict[str, Any]) -> None:
    """The predict path writes its response without the schema."""
    answer = client.post("/v1/predict", json=example)
    PredictResponse.model_validate_json(answer.content, strict=True, extra="forbid")
    ErrorResponse.model_validate_json(client.post("/v1/predict", json={}).content, extra="forbid")


def test_models_lists_metrics_measured_after_training(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert model["variant"] == "champion"
    assert model["share"] is None
    assert model["metrics"]
    assert model["baseline_metrics"]
